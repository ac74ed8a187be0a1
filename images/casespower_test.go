package images

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"atoll/bundle"
	"atoll/test/regtest"
)

// afterPower is the large blob of a store as a power cut may leave it.
type afterPower struct {
	*testing.T
	blob, part, record string // files
	data               []byte
}

// write puts data into a new file in the place of path.
func (p *afterPower) write(path string, data []byte) {
	if err := errors.Join(os.WriteFile(path+".new", data, 0o644), os.Rename(path+".new", path)); err != nil {
		p.Fatal(err)
	}
}

// unnamed undoes that the blob got its place.
func (p *afterPower) unnamed() {
	if err := os.Rename(p.blob, p.part); err != nil {
		p.Fatal(err)
	}
}

// only leaves so much in the place of the blob, as a part of it.
func (p *afterPower) only(part []byte) {
	p.write(p.part, part)
	if err := errors.Join(os.Remove(p.blob), os.Remove(p.record)); err != nil {
		p.Fatal(err)
	}
}

// TestPowerCut: whatever a power cut makes of a blob that was written, or was being
// written, the next run makes a right store of it, and fetches no more than it must.
func TestPowerCut(t *testing.T) {
	const size, half = 600_000, 300_000 // of the large blob
	zeros := make([]byte, size)
	for _, tc := range []struct {
		name string
		cut  func(p *afterPower)
		sent int64 // of the blob, by the next run
	}{
		{"nothing", func(p *afterPower) {}, 0},
		{"part", func(p *afterPower) { p.only(p.data[:half]) }, half},
		{"part that ends in zeros", func(p *afterPower) { p.only(append(bytes.Clone(p.data[:half-4096]), zeros[:4096]...)) }, half + size},
		{"part that grew before its bytes came", func(p *afterPower) { p.only(append(bytes.Clone(p.data[:half]), zeros[:4096]...)) }, half - 4096 + size},
		{"part that lost its end", func(p *afterPower) { p.only(p.data[:half-4096]) }, half + 4096},
		{"part that lost all", func(p *afterPower) { p.only(nil) }, size},
		{"part that is whole, of zeros", func(p *afterPower) { p.only(zeros) }, size},
		{"part that is whole, and ends in zeros", func(p *afterPower) { p.only(append(bytes.Clone(p.data[:size-4096]), zeros[:4096]...)) }, size},
		{"part that is too long", func(p *afterPower) { p.only(append(bytes.Clone(p.data), 0)) }, size},
		{"part that is whole", func(p *afterPower) { p.only(p.data) }, 0},
		{"name lost, record there", func(p *afterPower) { p.unnamed() }, 0},
		{"name lost, record there, part of zeros", func(p *afterPower) { p.unnamed(); p.write(p.part, zeros) }, size},
		{"blob lost, record there", func(p *afterPower) { os.Remove(p.blob) }, size},
		{"record lost", func(p *afterPower) { os.Remove(p.record) }, 0},
		{"record empty", func(p *afterPower) { p.write(p.record, nil) }, 0},
		{"record of zeros", func(p *afterPower) { p.write(p.record, zeros[:50]) }, 0},
		{"record lost, blob of zeros", func(p *afterPower) { os.Remove(p.record); p.write(p.blob, zeros) }, size},
		{"blob of zeros", func(p *afterPower) { p.write(p.blob, zeros) }, size},
		{"blob of zeros, as old as it was", func(p *afterPower) {
			info, err := os.Stat(p.blob)
			if err != nil {
				p.Fatal(err)
			}
			p.write(p.blob, zeros) // only the inode tells
			if err := os.Chtimes(p.blob, info.ModTime(), info.ModTime()); err != nil {
				p.Fatal(err)
			}
		}, size},
		{"blob cut", func(p *afterPower) { p.write(p.blob, p.data[:half]) }, size},
		{"blob empty", func(p *afterPower) { p.write(p.blob, nil) }, size},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := regtest.New(t)
			data := tiny(r, "lab/tiny:1").Layers[1]
			h := hashOf(data)
			locked := mustLock(t, caseOptions(r), "lab.test/lab/tiny:1")
			dir := t.TempDir()
			for run := range 2 {
				s, err := bundle.OpenStore(dir)
				if err != nil {
					t.Fatal(err)
				}
				r.Forget()
				if err := mirrorCase(t, caseOptions(r), s, locked); err != nil {
					t.Fatal(err)
				}
				verify(t, s, locked)
				if run == 1 {
					break
				}
				tc.cut(&afterPower{t, s.Path(h), filepath.Join(dir, "tmp", "part-"+h.Hex), filepath.Join(dir, "verified", h.Hex), data})
			}
			if got := r.Sent(h); got != tc.sent {
				t.Errorf("%d bytes were sent, want %d", got, tc.sent)
			}
			if _, err := bundle.OpenStore(dir); err != nil { // removes what nobody will go on with
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "tmp", "*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
