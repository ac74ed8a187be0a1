package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"log/slog"
)

// isolated is a command in namespaces of its own: mounts that vanish with it, no
// network, and processes that die with it. For a user who is not root it is root in a
// user namespace, with the IDs that /etc/subuid grants. All that it makes belongs to
// the same IDs as seen from another such command. Of the user's environment it sees
// nothing: what installs packages could leave a secret of it in the root file system.
func isolated(ctx context.Context, args ...string) *exec.Cmd {
	flags := []string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Geteuid() != 0 {
		flags = append(flags, "--user", "--map-root-user", "--map-auto")
	}
	cmd := exec.CommandContext(ctx, "unshare", append(append(flags, "--"), args...)...)
	cmd.Env = []string{"HOME=/root", "LC_ALL=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// lookIsolated fails with a [MissingToolError] if isolated cannot work.
func lookIsolated() error {
	if os.Geteuid() == 0 {
		return lookTool("unshare", "util-linux")
	}
	return errors.Join(lookTool("unshare", "util-linux"), lookTool("newuidmap", "uidmap"))
}

// tailLines is how much of a failed tool's output an error carries.
const tailLines = 20

// run runs a command. Its output, line by line, goes to the log and to line, which may
// be nil. The error of a command that failed ends in the last lines.
func run(cmd *exec.Cmd, log *slog.Logger, line func(string)) error {
	// The kernel sends Pdeathsig when the thread that started the child ends
	// (https://go.dev/issue/27505).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	var tail []string
	var wg sync.WaitGroup
	wg.Go(func() {
		s := bufio.NewScanner(r)
		for s.Scan() {
			log.Debug(s.Text(), "tool", toolName(cmd))
			if tail = append(tail, s.Text()); len(tail) > tailLines {
				tail = tail[1:]
			}
			if line != nil {
				line(s.Text())
			}
		}
		io.Copy(io.Discard, r) // a line that is too long must not stop the tool
	})
	err := cmd.Run()
	w.Close()
	wg.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w; it said:\n%s", toolName(cmd), err, strings.Join(tail, "\n"))
	}
	return nil
}

// toolName is the program that a command, isolated or not, is about.
func toolName(cmd *exec.Cmd) string {
	for i, arg := range cmd.Args {
		if arg == "--" && cmd.Args[0] == "unshare" {
			return cmd.Args[i+1]
		}
	}
	return cmd.Args[0]
}
