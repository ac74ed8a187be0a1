package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atoll/test/programs/imagedir"
)

// database is the image mysql, unpacked, whose server runs without a network.
type database struct {
	t    *testing.T
	root string
}

// command runs a program in the image, as root of a user namespace.
func (d database) command(args ...string) *exec.Cmd {
	cmd := exec.Command("unshare", append([]string{"-rnpf", "--kill-child", "chroot", d.root}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "MYSQL_ROOT_PASSWORD=it's secret", "MYSQL_DATABASE=katib"}
	return cmd
}

// start starts the server as the image does and returns what it says, and its end.
func (d database) start() (says *bytes.Buffer, stop func()) {
	d.t.Helper()
	cmd := d.command("/usr/local/bin/mysql-entrypoint", "--datadir", "/var/lib/mysql/datadir", "--skip-networking",
		"--authentication-policy=mysql_native_password", "--mysql-native-password=ON", "--disable-log-bin")
	says = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = says, says
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	return says, func() {
		_ = cmd.Process.Kill() // as a power cut does
		_ = cmd.Wait()
	}
}

// ask runs one statement until the server answers.
func (d database) ask(password, sql string) (string, error) {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		out, err := d.command("/usr/bin/mysql", "-u", "root", "-p"+password, "-D", "katib", "-N", "-e", sql).CombinedOutput()
		if err == nil || strings.Contains(string(out), "Access denied") || time.Now().After(deadline) {
			return strings.TrimSpace(string(out)), err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestDatabase runs MariaDB in the place of MySQL: it is killed as it makes its data, and
// with data.
func TestDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a database server; not in -short")
	}
	inRoot(t)
	const dir = "build/programs"
	entries, err := imagedir.Read(dir)
	if err != nil {
		t.Skip("the programs are not built: ", err)
	}
	d := database{t, t.TempDir()}
	for _, e := range entries {
		if e.Repository != "docker.io/library/mysql" {
			continue
		}
		img, err := imagedir.Image(dir, e.Digest)
		if err != nil {
			t.Fatal(err)
		}
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("tar", "-C", d.root, "-xzf", filepath.Join(dir, "blobs/sha256", m.Layers[0].Digest.Hex)).CombinedOutput(); err != nil {
			t.Fatalf("unpacking: %v\n%s", err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(d.root, "usr/sbin/mariadbd")); err != nil {
		t.Skip("no database is built: ", err)
	}
	if out, err := d.command("/usr/bin/mysql", "--version").CombinedOutput(); err != nil {
		t.Skipf("no user namespaces: %v %s", err, out)
	}

	says, kill := d.start()
	datadir := filepath.Join(d.root, "var/lib/mysql/datadir")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(datadir, "mysql")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			kill()
			t.Fatalf("nothing is made:\n%s", says)
		}
	}
	kill()
	if _, err := os.Stat(filepath.Join(datadir, "mysql-entrypoint.made")); err == nil {
		t.Error("the server was killed after it had made its data")
	}

	for n, sql := range []string{"CREATE TABLE t (a INT); INSERT INTO t VALUES (7); SELECT a FROM t", "SELECT a FROM t"} {
		says, kill := d.start()
		got, err := d.ask("it's secret", sql)
		if _, denied := d.ask("wrong", "SELECT 1"); denied == nil {
			t.Error("any password will do")
		}
		kill()
		if err != nil || got != "7" {
			t.Fatalf("start %d: %q, %v; the server says:\n%s", n+1, got, err, says)
		}
		if !strings.Contains(says.String(), "MariaDB in the place of MySQL") {
			t.Error("the program does not say that it is another brand")
		}
	}
}
