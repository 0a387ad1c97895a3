<?php
/** Reads a setting of the container from the environment variables of the upstream image. */
function lab_setting(string $name, string $otherwise): string
{
    $file = getenv("{$name}_FILE");
    if ($file !== false && $file !== '') {
        return rtrim(file_get_contents($file), "\r\n");
    }
    $value = getenv($name);
    return $value === false ? $otherwise : $value;
}

define('DB_HOST', lab_setting('WORDPRESS_DB_HOST', 'mysql'));
define('DB_USER', lab_setting('WORDPRESS_DB_USER', 'root'));
define('DB_PASSWORD', lab_setting('WORDPRESS_DB_PASSWORD', ''));
define('DB_NAME', lab_setting('WORDPRESS_DB_NAME', 'wordpress'));
define('DB_CHARSET', lab_setting('WORDPRESS_DB_CHARSET', 'utf8mb4'));
define('DB_COLLATE', lab_setting('WORDPRESS_DB_COLLATE', ''));
$table_prefix = lab_setting('WORDPRESS_TABLE_PREFIX', 'wp_');
require __DIR__ . '/wp-salts.php';
define('WP_DEBUG', lab_setting('WORDPRESS_DEBUG', '') !== '');
// A lab has no access to the Internet, so turn off WordPress's updates and other requests to other hosts.
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISABLE_WP_CRON', true);
if (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') {
    $_SERVER['HTTPS'] = 'on';
}
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
