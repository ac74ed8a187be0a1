package firstboot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"atoll/bundle"
)

// Where the node tells how far it is.
const (
	StatusPath = "/run/atoll/status.json" // gone at every boot, like what it tells of
	PortPath   = "/dev/virtio-ports/" + bundle.StatusPort
)

// Phases that every node has before those of its plan.
const (
	phasePrepare  = "prepare"
	phaseRegistry = "registry"
	phaseK3s      = "k3s"
	phaseWritable = "registry-rw"
	phaseSecrets  = "secrets" // only where the plan has some
)

// Options of what runs on the node. Nil is fine.
type Options struct {
	// Status is the status file. Default: [StatusPath].
	Status string
	// Console gets a line for people at each change of a phase. Nil: none.
	Console io.Writer
	// Log is told what is done. Nil discards.
	Log *slog.Logger

	installed string // record of what is installed; tests set it
}

func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.Status == "" {
		d.Status = StatusPath
	}
	if d.installed == "" {
		d.installed = installedPath
	}
	if d.Console == nil {
		d.Console = io.Discard
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return d
}

// ReadStatus reads a status file.
func ReadStatus(path string) (bundle.Status, error) {
	var s bundle.Status
	data, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("reading status: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("reading status %s: %w", path, err)
	}
	return s, nil
}

// update changes the status file. Several processes tell of their part in it, so it
// is read, changed and written whole under a lock.
func (o Options) update(change func(*bundle.Status)) error {
	if err := os.MkdirAll(filepath.Dir(o.Status), 0o755); err != nil {
		return fmt.Errorf("writing status: %w", err)
	}
	// Who can open the lock can hold it, and with it everyone who has something to tell.
	lock, err := os.OpenFile(o.Status+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("writing status: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking status: %w", err)
	}
	s, err := ReadStatus(o.Status)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("status is begun anew", "err", err)
	}
	change(&s)
	s.Updated = time.Now().UTC().Truncate(time.Millisecond)
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("writing status: %w", err)
	}
	return bundle.WriteFile(o.Status, func(f *os.File) error {
		if err := readableBy(f, StatusUser); err != nil { // it may quote logs
			return err
		}
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// readableBy closes a file to all but its owner and a group.
func readableBy(f *os.File, name string) error {
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	group, err := user.LookupGroup(name)
	if err != nil {
		return nil // no node: nobody is in it
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return fmt.Errorf("group %s: %w", name, err)
	}
	return errors.Join(f.Chown(-1, gid), f.Chmod(0o640))
}

// setPhase changes one phase, added if it is not there.
func setPhase(s *bundle.Status, p bundle.PhaseStatus) {
	i := slices.IndexFunc(s.Phases, func(q bundle.PhaseStatus) bool { return q.Name == p.Name })
	if i < 0 {
		s.Phases = append(s.Phases, p)
		return
	}
	s.Phases[i] = p
}

// phase runs one phase and tells of it: that it runs, how long it took or why it failed.
// A status that cannot be written does not stop the node.
func (o Options) phase(name string, run func() error) error {
	start := time.Now()
	o.tell(func(s *bundle.Status) {
		s.State, s.Error, s.Log = bundle.StateRunning, "", nil
		setPhase(s, bundle.PhaseStatus{Name: name, State: bundle.StateRunning})
	})
	fmt.Fprintf(o.Console, "atoll: %s …\n", name)
	err := run()
	p := bundle.PhaseStatus{Name: name, State: bundle.StateReady, Seconds: time.Since(start).Seconds()}
	var log []string
	if f := (*failure)(nil); errors.As(err, &f) {
		log = f.log
	}
	if err != nil {
		p.State, p.Message = bundle.StateFailed, firstLine(err)
		fmt.Fprintf(o.Console, "atoll: %s failed after %.0fs: %v\n", name, p.Seconds, err)
		for _, line := range log {
			fmt.Fprintf(o.Console, "atoll:   %s\n", line)
		}
	} else {
		fmt.Fprintf(o.Console, "atoll: %s ready in %.0fs\n", name, p.Seconds)
	}
	o.tell(func(s *bundle.Status) {
		setPhase(s, p)
		if err != nil {
			s.State, s.Error, s.Log = bundle.StateFailed, fmt.Sprintf("%s: %v", name, err), log
		}
	})
	return err
}

// waiting tells what a running phase waits for.
func (o Options) waiting(name, message string) {
	o.tell(func(s *bundle.Status) {
		setPhase(s, bundle.PhaseStatus{Name: name, State: bundle.StateRunning, Message: message})
	})
}

func (o Options) tell(change func(*bundle.Status)) {
	if err := o.update(change); err != nil {
		o.Log.Warn("telling status", "err", err)
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// RegistryPhase tells that the registry serves, or why it does not.
func RegistryPhase(o *Options, err error) error {
	opts := o.withDefaults()
	return opts.phase(phaseRegistry, func() error { return err })
}

// FormatStatus writes a status for people.
func FormatStatus(w io.Writer, s bundle.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\t%s\n", s.Appliance, s.State)
	for _, p := range s.Phases {
		took := ""
		if p.Seconds > 0 {
			took = fmt.Sprintf("%.0fs", p.Seconds)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", p.Name, p.State, took, p.Message)
	}
	if s.Error != "" {
		fmt.Fprintf(t, "error: %s\n", s.Error)
	}
	for _, line := range s.Log {
		fmt.Fprintf(t, "  %s\n", line)
	}
	return t.Flush()
}

// statusLine is a status as it goes over the virtio port.
func statusLine(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return append(bytes.TrimSpace(data), '\n'), nil
}
