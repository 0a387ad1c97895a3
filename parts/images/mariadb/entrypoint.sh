#!/bin/bash
# The first process of the container. It takes the environment variables of the upstream image. Each has the prefix
# MARIADB_ or MYSQL_, and may be given as …_FILE instead:
#   ROOT_PASSWORD, or ALLOW_EMPTY_ROOT_PASSWORD, or RANDOM_ROOT_PASSWORD; ROOT_HOST (default %)
#   DATABASE, USER, PASSWORD
# They apply only while the data directory is empty. A later start with other values changes nothing.
set -euo pipefail

data=/var/lib/mysql
say() { printf 'lab: %s\n' "$*" >&2; }

# setting NAME: prints the value of MARIADB_NAME or MYSQL_NAME, or the content of the file that …_FILE names.
setting() {
  local prefix variable
  for prefix in MARIADB MYSQL; do
    variable=${prefix}_$1
    [[ -z ${!variable-} ]] || { printf %s "${!variable}"; return; }
    variable=${variable}_FILE
    [[ -z ${!variable-} ]] || { cat "${!variable}"; return; }
  done
}

# Quote a string and an identifier for SQL.
string() { local s=${1//\\/\\\\}; s=${s//\'/\\\'}; printf "'%s'" "${s//$'\n'/\\n}"; }
name() { printf '`%s`' "${1//\`/\`\`}"; }

[[ ${1-} != -* ]] || set -- mariadbd "$@"
case ${1-} in
  mariadbd | mysqld) ;;
  *) exec "$@" ;;
esac

# The image contains an initialised data directory. A power cut may interrupt the copying at any moment, so a marker
# stays until the copy is complete and on the disk. If the next start finds the marker, it copies again.
if [[ ! -d $data/mysql || -e $data/.lab-copying ]]; then
  password=$(setting ROOT_PASSWORD)
  if [[ -z $password && -z $(setting ALLOW_EMPTY_ROOT_PASSWORD) && -z $(setting RANDOM_ROOT_PASSWORD) ]]; then
    say 'the data directory is empty: set MARIADB_ROOT_PASSWORD, MARIADB_ALLOW_EMPTY_ROOT_PASSWORD or MARIADB_RANDOM_ROOT_PASSWORD'
    exit 1
  fi
  say 'filling the empty data directory'
  : > $data/.lab-copying
  find $data -mindepth 1 -maxdepth 1 ! -name lost+found ! -name .lab-copying -exec rm -rf {} +
  # Copy the content only: the directory's owner and mode were chosen by whoever made the volume.
  cp -a /usr/share/lab/mysql/* $data/
  sync -f $data
  rm $data/.lab-copying
fi

# The server itself creates databases and users before it accepts clients, so it has to start only once. Each of these
# statements can be repeated, and the last one records that all of them were executed.
if [[ ! -e $data/lab-users ]]; then
  [[ -z ${password-} ]] && password=$(setting ROOT_PASSWORD)
  if [[ -z $password && -n $(setting RANDOM_ROOT_PASSWORD) ]]; then
    password=$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')
    say "the password of root is $password"
  fi
  root=$(string "$password") host=$(setting ROOT_HOST) database=$(setting DATABASE)
  user=$(setting USER) word=$(setting PASSWORD)
  init=$(mktemp -p /dev/shm lab-XXXXXX.sql)
  {
    printf "SET @@SESSION.SQL_MODE = REPLACE(@@SESSION.SQL_MODE, 'NO_BACKSLASH_ESCAPES', '');\n"
    printf 'ALTER USER root@localhost IDENTIFIED BY %s;\n' "$root"
    account="root@$(string "${host:-%}")"
    if [[ ${host:-%} != localhost ]]; then
      printf 'CREATE USER IF NOT EXISTS %s IDENTIFIED BY %s;\n' "$account" "$root"
      printf 'GRANT ALL ON *.* TO %s WITH GRANT OPTION;\n' "$account"
    fi
    [[ -z $database ]] || printf 'CREATE DATABASE IF NOT EXISTS %s;\n' "$(name "$database")"
    if [[ -n $user && -n $word ]]; then
      account="$(string "$user")@'%'"
      printf 'CREATE USER IF NOT EXISTS %s IDENTIFIED BY %s;\n' "$account" "$(string "$word")"
      # In GRANT, an underscore matches any character unless it is escaped.
      [[ -z $database ]] || printf 'GRANT ALL ON %s.* TO %s;\n' "$(name "${database//_/\\_}")" "$account"
    fi
    printf "SELECT 'made' INTO OUTFILE '%s/lab-users';\n" $data
  } > "$init"
  if [[ $EUID = 0 ]]; then chown mysql: "$init"; fi
  set -- "$@" --init-file="$init"
fi

if [[ $EUID = 0 ]]; then install -d -o mysql -g mysql /run/mysqld; fi

# Remove the passwords from the server's environment, where crash reports and child processes could reveal them.
unset "${!MARIADB_@}" "${!MYSQL_@}"
if [[ $EUID = 0 ]]; then
  exec setpriv --reuid=mysql --regid=mysql --clear-groups -- "$@"
fi
exec "$@"
