// Mysql-entrypoint starts MariaDB in a container as the image mysql starts MySQL: on the
// first start it makes the data folder, with what the environment asks for.
//
//	MYSQL_ROOT_PASSWORD, or MYSQL_ALLOW_EMPTY_PASSWORD   root's password
//	MYSQL_DATABASE, MYSQL_USER, MYSQL_PASSWORD           a database and its user
//
// Arguments are mysqld's. Those that MySQL alone has are ignored with a warning.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	server  = "/usr/sbin/mariadbd"
	scripts = "/usr/share/mysql"
)

// made is a file in the data folder that says that it is complete. A folder without it was
// left by a start that did not come to its end.
const made = "mysql-entrypoint.made"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mysql-entrypoint:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 && args[0] == "mysqld" {
		args = args[1:]
	} else if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		program, err := exec.LookPath(args[0])
		if err != nil {
			return err
		}
		return syscall.Exec(program, args, os.Environ())
	}
	fmt.Println("mysql-entrypoint: this is MariaDB in the place of MySQL")
	dir := dataDir(args)
	if _, err := os.Stat(filepath.Join(dir, made)); errors.Is(err, fs.ErrNotExist) {
		if err := initialise(dir); err != nil {
			return fmt.Errorf("making %s: %w", dir, err)
		}
	} else if err != nil {
		return err
	}
	return syscall.Exec(server, append([]string{server}, serverArgs(args)...), os.Environ())
}

// dataDir is the folder that the arguments name.
func dataDir(args []string) string {
	dir := "/var/lib/mysql"
	for n, a := range args {
		if value, ok := strings.CutPrefix(a, "--datadir="); ok {
			dir = value
		} else if a == "--datadir" && n+1 < len(args) {
			dir = args[n+1]
		}
	}
	return dir
}

// serverArgs are the arguments as MariaDB takes them. "Loose" is its word for an option
// that it may not know.
func serverArgs(args []string) []string {
	out := make([]string, 0, len(args)+1)
	for _, a := range args {
		for _, alone := range []string{"--authentication-policy", "--mysql-native-password"} {
			if a == alone || strings.HasPrefix(a, alone+"=") {
				a = "--loose-" + strings.TrimPrefix(a, "--")
			}
		}
		out = append(out, a)
	}
	if os.Geteuid() == 0 {
		out = append(out, "--user=root")
	}
	return out
}

// initialise fills the data folder.
func initialise(dir string) error {
	users, err := usersSQL(os.Getenv)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range left {
		if e.Name() == "lost+found" { // of a volume's file system
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	sql := bytes.NewBufferString("CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n")
	for _, name := range []string{
		"mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql",
		"maria_add_gis_sp_bootstrap.sql", "mysql_sys_schema.sql",
	} {
		data, err := os.ReadFile(filepath.Join(scripts, name))
		if err != nil {
			return err
		}
		sql.Write(data)
		sql.WriteByte('\n')
	}
	sql.WriteString(users)
	cmd := exec.Command(server, serverArgs([]string{
		"--no-defaults", "--bootstrap", "--datadir=" + dir, "--log-warnings=0", "--max-allowed-packet=8M", "--net-buffer-length=16K",
	})...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = sql, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running mariadbd --bootstrap: %w", err)
	}
	return finish(filepath.Join(dir, made))
}

// finish marks a data folder as complete, on disk.
func finish(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// usersSQL makes the users that the environment asks for. Its lines are one statement each,
// as a bootstrapping server wants them.
func usersSQL(env func(string) string) (string, error) {
	root := env("MYSQL_ROOT_PASSWORD")
	if root == "" && env("MYSQL_ALLOW_EMPTY_PASSWORD") == "" {
		return "", errors.New("MYSQL_ROOT_PASSWORD is not set, nor MYSQL_ALLOW_EMPTY_PASSWORD")
	}
	var sql strings.Builder
	sql.WriteString("FLUSH PRIVILEGES;\nDELETE FROM mysql.global_priv WHERE User IN ('', 'root');\nFLUSH PRIVILEGES;\n")
	for _, host := range []string{"localhost", "%"} {
		fmt.Fprintf(&sql, "CREATE USER 'root'@'%s' IDENTIFIED BY %s;\nGRANT ALL ON *.* TO 'root'@'%s' WITH GRANT OPTION;\n", host, quote(root), host)
	}
	database := env("MYSQL_DATABASE")
	if database != "" {
		fmt.Fprintf(&sql, "CREATE DATABASE %s;\n", name(database))
	}
	if user := env("MYSQL_USER"); user != "" {
		fmt.Fprintf(&sql, "CREATE USER %s@'%%' IDENTIFIED BY %s;\n", quote(user), quote(env("MYSQL_PASSWORD")))
		if database != "" {
			fmt.Fprintf(&sql, "GRANT ALL ON %s.* TO %s@'%%';\n", name(strings.NewReplacer("_", `\_`, "%", `\%`).Replace(database)), quote(user))
		}
	}
	return sql.String(), nil
}

// quote makes a string of SQL, on one line.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`, "\n", `\n`, "\r", `\r`, "\x00", `\0`).Replace(s) + "'"
}

// name quotes a name of SQL.
func name(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
