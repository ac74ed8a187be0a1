package main

import (
	"slices"
	"strings"
	"testing"
)

func TestDataDir(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "/var/lib/mysql"},
		{[]string{"--datadir", "/var/lib/mysql/datadir"}, "/var/lib/mysql/datadir"},
		{[]string{"--datadir=/d", "--disable-log-bin"}, "/d"},
		{[]string{"--datadir"}, "/var/lib/mysql"},
	} {
		if got := dataDir(c.args); got != c.want {
			t.Errorf("dataDir(%q) = %q, want %q", c.args, got, c.want)
		}
	}
}

func TestServerArgs(t *testing.T) {
	got := serverArgs([]string{"--authentication-policy=mysql_native_password", "--mysql-native-password=ON", "--disable-log-bin"})
	want := []string{"--loose-authentication-policy=mysql_native_password", "--loose-mysql-native-password=ON", "--disable-log-bin"}
	if len(got) < 3 || !slices.Equal(got[:3], want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUsersSQL(t *testing.T) {
	env := map[string]string{}
	if _, err := usersSQL(func(k string) string { return env[k] }); err == nil {
		t.Error("no word about root's password is no error")
	}
	env = map[string]string{"MYSQL_ROOT_PASSWORD": "a'b\\c\n; DROP", "MYSQL_DATABASE": "k`a_b", "MYSQL_USER": "u", "MYSQL_PASSWORD": "p"}
	sql, err := usersSQL(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`IDENTIFIED BY 'a\'b\\c\n; DROP';`, "CREATE DATABASE `k``a_b`;", "GRANT ALL ON `k``a\\_b`.* TO 'u'@'%';"} {
		if !strings.Contains(sql, want) {
			t.Errorf("no %s in\n%s", want, sql)
		}
	}
	for line := range strings.Lines(sql) {
		if !strings.HasSuffix(line, ";\n") {
			t.Errorf("line is not one statement: %q", line)
		}
	}
}
