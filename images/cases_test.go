package images

// The files cases*_test.go are what others reported about mirroring, each as a test of
// its whole kind, on a registry that misbehaves: see [regtest].

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"atoll/bundle"
	"atoll/bundle/bundletest"
	"atoll/test/regtest"
)

// caseOptions sends lab.test's traffic to the registry, without credentials.
func caseOptions(r *regtest.Registry) *Options {
	return &Options{
		Mirrors:  map[string]string{"lab.test": r.URL()},
		Keychain: authn.NewMultiKeychain(),
		pause:    time.Millisecond, idle: 250 * time.Millisecond,
	}
}

// tiny is an image of a small and a larger layer.
func tiny(r *regtest.Registry, names ...string) regtest.Image {
	img := regtest.Image{Arch: "amd64", Layers: [][]byte{regtest.Bytes(1, 4096), regtest.Bytes(2, 600_000)}}
	r.AddImage(img, names...)
	return img
}

// others are images for other platforms.
func others(r *regtest.Registry) []v1.Descriptor {
	return []v1.Descriptor{r.AddImage(regtest.Image{Arch: "arm64", Layers: [][]byte{regtest.Bytes(3, 5000)}})}
}

func hashOf(data []byte) v1.Hash { return bundle.DigestOf(data) }

var errHangs = errors.New("hangs")

// bounded gives f's error, and fails the test if there is none for half a minute. No bound
// of its own in f is as long.
func bounded(t *testing.T, f func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 30*time.Second, errHangs)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		if errors.Is(err, errHangs) {
			t.Fatal("it hangs")
		}
		return err
	case <-time.After(35 * time.Second):
		t.Fatal("it hangs, even when cancelled")
		return nil
	}
}

func lockCase(t *testing.T, o *Options, refs ...string) (locked []bundle.LockedImage, err error) {
	t.Helper()
	var wanted []Wanted
	for _, ref := range refs {
		wanted = append(wanted, Wanted{Reference: ref, Tier: bundle.TierRequired})
	}
	err = bounded(t, func(ctx context.Context) error {
		c, err := newClient(o)
		if err != nil {
			return err
		}
		locked, err = c.resolveImages(ctx, wanted, "amd64")
		return err
	})
	return locked, err
}

// mustLock locks what has to be locked without an error.
func mustLock(t *testing.T, o *Options, refs ...string) []bundle.LockedImage {
	t.Helper()
	locked, err := lockCase(t, o, refs...)
	if err != nil {
		t.Fatal("locking: ", err)
	}
	return locked
}

func mirrorCase(t *testing.T, o *Options, s *bundle.Store, locked []bundle.LockedImage) error {
	t.Helper()
	d := definition(t, "")
	return bounded(t, func(ctx context.Context) error {
		return Mirror(ctx, d, &bundle.Lock{Images: locked}, s, o)
	})
}

// verify packs the images of a store and verifies what it packed.
func verify(t *testing.T, s *bundle.Store, locked []bundle.LockedImage) {
	t.Helper()
	checkStore(t, s)
	f := bundletest.New(t)
	f.Store, f.Lock.Images = s, locked
	b, err := bundle.Open(f.Pack(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// checkClear looks whether an error says that the mirror is incomplete, what lacks and
// who was asked, and nothing that is secret.
func checkClear(t *testing.T, err error, name string) {
	t.Helper()
	if !errors.Is(err, bundle.ErrIncomplete) {
		t.Errorf("got %v, want an error that the mirror is incomplete", err)
		return
	}
	for _, part := range []string{name, "127.0.0."} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not name %s: %v", part, err)
		}
	}
	checkNoSecret(t, err)
}

func checkNoSecret(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"pass-", "s3cret"} {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("error tells a secret: %v", err)
		}
	}
}
