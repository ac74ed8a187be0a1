package firstboot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"atoll/bundle"
)

func TestPhases(t *testing.T) {
	var console bytes.Buffer
	o := testOptions(t)
	o.Console = &console
	opts := o.withDefaults()
	opts.tell(func(s *bundle.Status) { *s = newStatus("lab", &bundle.Plan{Phases: []bundle.Phase{{Name: "one"}}}) })
	if err := RegistryPhase(o, nil); err != nil {
		t.Fatal(err)
	}
	sick := &failure{errors.New("pod x: ImagePullBackOff\nmore"), []string{"line 1"}}
	err := opts.phase("one", func() error {
		opts.waiting("one", "waits for x")
		if s, err := ReadStatus(o.Status); err != nil || s.Phases[4].Message != "waits for x" || s.State != bundle.StateRunning {
			t.Errorf("while it runs: %+v, %v", s, err)
		}
		return sick
	})
	if !errors.Is(err, sick) {
		t.Errorf("got %v", err)
	}
	s, err := ReadStatus(o.Status)
	if err != nil {
		t.Fatal(err)
	}
	if s.State != bundle.StateFailed || s.Error != "one: "+sick.Error() || len(s.Log) != 1 || s.Phases[4].Message != "pod x: ImagePullBackOff" {
		t.Errorf("after it failed: %+v", s)
	}
	if !strings.Contains(console.String(), "atoll: registry ready in 0s\n") || !strings.Contains(console.String(), "atoll:   line 1\n") {
		t.Errorf("console has %q", console.String())
	}
	// The next attempt clears what the last one told.
	if err := opts.phase("one", func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if s, err = ReadStatus(o.Status); err != nil || s.Error != "" || s.Log != nil || s.Phases[4].State != bundle.StateReady {
		t.Errorf("after it went well: %+v, %v", s, err)
	}
	var text bytes.Buffer
	if err := FormatStatus(&text, s); err != nil || !strings.Contains(text.String(), "registry     ready") {
		t.Errorf("as text: %q, %v", text.String(), err)
	}
}

// TestStatusWriters lets many processes' worth of writers tell at once.
func TestStatusWriters(t *testing.T) {
	o := testOptions(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			opts := o.withDefaults()
			if err := opts.update(func(s *bundle.Status) { setPhase(s, bundle.PhaseStatus{Name: string(rune('a' + i))}) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s, err := ReadStatus(o.Status); err != nil || len(s.Phases) != 20 {
		t.Errorf("%d phases, %v; a writer's part was lost", len(s.Phases), err)
	}
}

// TestStatusSurvivesDamage makes sure that a bad status file is replaced.
func TestStatusSurvivesDamage(t *testing.T) {
	o := testOptions(t)
	put(t, filepath.Dir(o.Status), "status.json", "{")
	if err := RegistryPhase(o, nil); err != nil {
		t.Error(err)
	}
	if s, err := ReadStatus(o.Status); err != nil || len(s.Phases) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// TestPublish reads what goes over the port, a pipe here, that comes late and whose
// reader sleeps at first.
func TestPublish(t *testing.T) {
	o := testOptions(t)
	port := filepath.Join(t.TempDir(), "port")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Publish(ctx, o.Status, port) }()
	if err := RegistryPhase(o, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * lookEvery)
	if err := syscall.Mkfifo(port, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * lookEvery) // no reader: opening gives ENXIO
	pipe, err := os.OpenFile(port, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	opts := o.withDefaults()
	lines := json.NewDecoder(pipe)
	var s bundle.Status
	if err := lines.Decode(&s); err != nil || s.Phases[0].State != bundle.StateReady {
		t.Fatalf("first line: %+v, %v", s, err)
	}
	if err := opts.update(func(s *bundle.Status) { s.State = bundle.StateReady }); err != nil {
		t.Fatal(err)
	}
	cancel() // at once: the last change must be told all the same
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := lines.Decode(&s); err != nil || s.State != bundle.StateReady {
		t.Errorf("last line: %+v, %v", s, err)
	}
}

// TestPublishToNobody fills a pipe that is never read: nothing may block.
func TestPublishToNobody(t *testing.T) {
	o := testOptions(t)
	port := filepath.Join(t.TempDir(), "port")
	if err := syscall.Mkfifo(port, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(port, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	fd := int(pipe.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil { // Fd made it blocking
		t.Fatal(err)
	}
	for err == nil { // fill it
		_, err = syscall.Write(fd, make([]byte, 4096))
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Fatal(err)
	}
	if err := RegistryPhase(o, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	if err := Publish(ctx, o.Status, port); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}
