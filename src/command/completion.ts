import { exitCodes, type ExitCode, LabError } from '../error.js'
import { type Io, type Options, type Verb } from '../command-line/verb.js'

/** The words for completion: commands first, then labs. They come from the description of the command line. */
const scripts: Readonly<Record<string, (commands: readonly string[]) => string>> = {
  bash: (commands) => `# eval "$(lab completion bash)"
_lab() {
  local word="\${COMP_WORDS[COMP_CWORD]}"
  case "$COMP_CWORD" in
    1) mapfile -t COMPREPLY < <(compgen -W '${commands.join(' ')}' -- "$word") ;;
    2) mapfile -t COMPREPLY < <(compgen -W "$(lab list 2>/dev/null | cut -d' ' -f1)" -- "$word"; compgen -f -X '!*.yaml' -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$(lab status "\${COMP_WORDS[2]}" 2>/dev/null | sed -n 's/^  \\([a-z0-9-]*\\) .*/\\1/p') all worker target" -- "$word") ;;
  esac
}
complete -F _lab lab
`,
  zsh: (commands) => `#compdef lab
# lab completion zsh > "\${fpath[1]}/_lab"
_lab() {
  if (( CURRENT == 2 )); then compadd ${commands.join(' ')}
  elif (( CURRENT == 3 )); then compadd -- \${(f)"$(lab list 2>/dev/null | cut -d' ' -f1)"}; _files -g '*.yaml'
  else compadd -- \${(f)"$(lab status $words[3] 2>/dev/null | sed -n 's/^  \\([a-z0-9-]*\\) .*/\\1/p')"} all worker target
  fi
}
compdef _lab lab
`,
  fish: (commands) => `# lab completion fish > ~/.config/fish/completions/lab.fish
complete -c lab -f -n __fish_use_subcommand -a '${commands.join(' ')}'
complete -c lab -n 'not __fish_use_subcommand' -a '(lab list 2>/dev/null | cut -d" " -f1)'
`,
}

const run = (shell: string, _options: Options, io: Io): ExitCode => {
  const script = scripts[shell]
  if (!script)
    throw new LabError('unknown-shell', `no completion for ${shell}`, {
      hint: `one of: ${Object.keys(scripts).join(', ')}`,
      exitCode: exitCodes.usage,
    })
  io.stdout.write(script(io.verbs))
  return exitCodes.ok
}

export const verb: Verb = {
  words: { shell: 'bash, zsh or fish' },
  run,
}
