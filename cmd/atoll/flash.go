package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"atoll/bundle/signature"
	"atoll/images/disk"
)

func newFlashCommand(e *env) *cobra.Command {
	var yes bool
	var verify string
	cmd := &cobra.Command{
		Use:   "flash IMAGE DEVICE",
		Short: "Write a disk image to a disk",
		Long: `Flash writes a disk image, as bake makes it, to a whole disk, like /dev/sdb, and
destroys all that the disk holds. It refuses a disk that is in use, one that is too
small, and an image that is not whole. It asks before it writes, and reads back what
it has written. A disk that was written only in part does not start. With --verify the image
must be signed with that key.
` + exitStatus,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runFlash(cmd.Context(), e, cmd.InOrStdin(), args[0], args[1], verify, yes)
		},
	}
	cmd.Flags().StringVar(&verify, "verify", "", "public key that the image must be signed with, or it is not written")
	cmd.Flags().BoolVar(&yes, "yes", false, "write without asking")
	return cmd
}

func runFlash(ctx context.Context, e *env, stdin io.Reader, image, device, verify string, yes bool) error {
	var key *signature.PublicKey
	var want v1.Hash
	if verify != "" {
		var err error
		if key, err = readPublicKey(verify); err != nil {
			return err
		}
		if want, err = signedSum(image, key); err != nil {
			return err
		}
	}
	m, err := disk.OpenImage(image)
	if err != nil {
		return hintFlash(err)
	}
	defer m.Close()
	t, err := disk.FindTarget(device)
	if err == nil {
		err = t.Fits(m)
	}
	if err == nil && key != nil {
		err = compareSum(e, image, key, want, func(progress func(done, total int64)) (v1.Hash, error) { return m.Sum(ctx, progress) })
	}
	if err != nil {
		return hintFlash(err)
	}
	if !yes {
		if err := confirm(ctx, e, stdin, t); err != nil {
			return err
		}
	}
	step := e.progress("flash")
	err = disk.Flash(ctx, m, t, &disk.Options{Log: e.log, Progress: step.named})
	step.end(err, "%s, %s, read back and the same", t.Path, size(m.Size))
	return hintFlash(err)
}

// hintFlash adds what the user can do about a disk or an image that is refused.
func hintFlash(err error) error {
	var target *disk.TargetError
	if errors.As(err, &target) && target.Advice != "" {
		return withHint(err, "%s", target.Advice)
	}
	var half *disk.UnfinishedError
	if errors.As(err, &half) {
		return withHint(err, "%s", flashAgain(half))
	}
	var image *disk.ImageError
	if errors.As(err, &image) {
		return withHint(damagedError{err}, `"atoll bake" makes an image`)
	}
	return hintRemake(err, `"atoll bake" makes the image anew`)
}

func flashAgain(half *disk.UnfinishedError) string {
	return half.Device + " was written only in part and does not start: flash it again"
}

// confirm lets a person at a terminal say that the disk is the right one, by its name.
func confirm(ctx context.Context, e *env, stdin io.Reader, t *disk.Target) error {
	f, ok := stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usageError{withHint(errors.New("nobody is there to ask whether "+t.Path+" may be overwritten"), "--yes writes without asking")}
	}
	name := filepath.Base(t.Path)
	fmt.Fprintf(e.stderr, "This destroys all that is on %s (%s).\nType %s to go on: ", t.Path, describe(t), name)
	answered := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(f).ReadString('\n')
		answered <- strings.TrimSpace(line)
	}()
	select {
	case answer := <-answered:
		if answer != name {
			return fmt.Errorf("not confirmed: nothing was written to %s", t.Path)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// describe is what a person knows a disk by.
func describe(t *disk.Target) string {
	said := []string{size(t.Size)}
	if t.Model != "" {
		said = append(said, t.Model)
	}
	if t.Serial != "" {
		said = append(said, "serial "+t.Serial)
	}
	return strings.Join(said, ", ")
}
