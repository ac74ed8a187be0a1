package bundle

import (
	"context"
	"io"
)

// copySize is the buffer of bulk copies. A larger one is no faster.
const copySize = 256 << 10

// copyContext is io.CopyBuffer that stops when the context is done.
func copyContext(ctx context.Context, w io.Writer, r io.Reader, buf []byte) (int64, error) {
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		got, rerr := r.Read(buf)
		if _, err := w.Write(buf[:got]); err != nil {
			return n, err
		}
		n += int64(got)
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}
