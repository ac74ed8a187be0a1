package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"atoll": main, "qemu-system-x86_64": fakeQEMU})
}

// TestScripts are what a user sees of the commands that need nothing but a definition.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Cmds: map[string]func(*testscript.TestScript, bool, []string){"until": cmdUntil}, Condition: func(cond string) (bool, error) {
		if cond != "firmware" {
			return false, fmt.Errorf("unknown condition %q", cond)
		}
		_, err := os.Stat("/usr/share/OVMF/OVMF_CODE_4M.fd")
		return err == nil, nil
	}})
}

// TestWorld are scripts of the commands that need a registry, a k3s release and a Debian
// archive: see [world].
func TestWorld(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip(err)
	}
	shared := newWorld(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/world",
		Setup: func(e *testscript.Env) error {
			return (&world{registry: shared.registry, node: shared.node}).setup(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"registry": cmdRegistry, "exits": cmdExits, "expand": cmdExpand, "flip": cmdFlip, "cut": cmdCut,
			"tmpfs": cmdTmpfs, "noleft": cmdNoLeft, "events": cmdEvents, "terminal": cmdTerminal,
			"lab": cmdLab, "interrupts": cmdInterrupts,
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "mknod": // not every root may make devices
				return syscall.Mknod(filepath.Join(t.TempDir(), "disk"), syscall.S_IFBLK|0o600, 7<<8|250) == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}
