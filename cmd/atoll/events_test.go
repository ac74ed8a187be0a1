package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"atoll/images"
)

// event is any event.
type event struct {
	Event             string
	Name, Host, Error string
	Bytes             int64
	Blobs             int
	Hosts             []struct {
		Host  string
		Blobs int
		Bytes int64
	}
	Done, Total, Left int64
	OK                bool
	Failed            int
	Moving            []struct{ Name, Host, Digest string }
}

func readEvents(text string) (all []event, err error) {
	for line := range strings.Lines(text) {
		dec := json.NewDecoder(strings.NewReader(line))
		var e event
		if err := dec.Decode(&e); err != nil || dec.More() || e.Event == "" {
			return nil, errors.Join(errors.New("not one event: "+line), err)
		}
		all = append(all, e)
	}
	return all, nil
}

// cmdEvents is the script command "events": stdout has a run's events, in order, and
// their sums agree.
func cmdEvents(ts *testscript.TestScript, _ bool, _ []string) {
	all, err := readEvents(ts.ReadFile("stdout"))
	ts.Check(err)
	for len(all) > 0 && (all[0].Event == "reading" || all[0].Event == "checking") {
		all = all[1:]
	}
	if len(all) < 2 || all[0].Event != "start" || all[len(all)-1].Event != "end" {
		ts.Fatalf("events do not begin with start and end with end")
	}
	start, end := all[0], all[len(all)-1]
	var byHost, came int64
	hostBlobs, blobs, failed := 0, 0, 0
	for _, h := range start.Hosts {
		byHost += h.Bytes
		hostBlobs += h.Blobs
	}
	for _, e := range all[1 : len(all)-1] {
		switch e.Event {
		case "blob":
			came += e.Bytes
			blobs++
		case "failed":
			failed++
		case "progress":
		default:
			ts.Fatalf("event %q in the middle", e.Event)
		}
	}
	if byHost != start.Bytes || hostBlobs != start.Blobs || start.Bytes != end.Total {
		ts.Fatalf("hosts have %d bytes in %d blobs; start %d in %d; end %d", byHost, hostBlobs, start.Bytes, start.Blobs, end.Total)
	}
	if came != end.Done || end.Left < end.Total-end.Done || failed != end.Failed || end.OK != (failed == 0) {
		ts.Fatalf("%d bytes came in %d blobs, %d failed; the end says %+v", came, blobs, failed, end)
	}
}

func TestEventsAreRare(t *testing.T) {
	var out bytes.Buffer
	ev := newEvents(&out)
	begin := time.Unix(1000, 0)
	blob := images.Blob{Name: "image a", Digest: v1.Hash{Algorithm: "sha256", Hex: "aa"}, Host: "h", Total: 50}
	for i := range 21 { // 200 ms apart
		p := images.Progress{Done: int64(i), Total: 50, Blobs: 1, Moving: []images.Blob{blob}}
		if i == 7 {
			p.Finished = []images.Blob{{Name: "image b"}}
		}
		ev.progress(begin.Add(time.Duration(i)*200*time.Millisecond), p)
	}
	if err := ev.end(errors.New("broke")); err != nil {
		t.Fatal(err)
	}
	all, err := readEvents(out.String())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		got = append(got, e.Event)
	}
	if want := "start progress blob progress progress progress end"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if p := all[1]; p.Done != 5 || p.Total != 50 || len(p.Moving) != 1 || p.Moving[0].Digest != "sha256:aa" {
		t.Errorf("progress is %+v", p)
	}
	if end := all[len(all)-1]; end.OK || end.Error != "broke" || end.Left != 30 {
		t.Errorf("the end is %+v", end)
	}
}

func TestReadingEventsAreRare(t *testing.T) {
	var out bytes.Buffer
	ev := newEvents(&out)
	begin := time.Unix(1000, 0)
	for i := range 14 { // 200 ms apart, the last but one at 2.4 s
		ev.before("reading", begin.Add(time.Duration(i)*200*time.Millisecond), int64(i), 13)
	}
	want := `{"event":"reading","done":0,"total":13}
{"event":"reading","done":5,"total":13}
{"event":"reading","done":10,"total":13}
{"event":"reading","done":13,"total":13}
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestEventsThatCannotBeWritten(t *testing.T) {
	if err := newEvents(fullWriter{}).end(nil); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("got %v", err)
	}
}
