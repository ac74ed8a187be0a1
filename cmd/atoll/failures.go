package main

import (
	"errors"
	"fmt"
	"strings"

	"atoll/images"
)

// maxListed is how many things of one kind an error lists before it only counts them.
const maxListed = 10

// incompleteError is an [images.IncompleteError] told to people.
type incompleteError struct {
	error
	text  string
	again string // the command that goes on
}

func (e incompleteError) Unwrap() error { return e.error }
func (e incompleteError) Error() string { return e.text }

// explainIncomplete groups what a mirror lacks, if that is the error, and adds the
// command that goes on.
func (e *env) explainIncomplete(err error) error {
	var incomplete *images.IncompleteError
	if !errors.As(err, &incomplete) {
		return err
	}
	text := failureText(images.Failures(incomplete))
	if incomplete.Left > 0 {
		text += fmt.Sprintf("mirror is incomplete: %s are left to fetch; what has come is kept", size(incomplete.Left))
	} else {
		text += "mirror is incomplete: what could be fetched is kept"
	}
	return incompleteError{err, text, e.command}
}

// failure is why one thing is incomplete.
type failure struct {
	name string // an image, a file, a package or a source; "" if it is none of them
	host string // "" if nobody was asked
	said string
	err  error
}

// failuresByName gives each incomplete thing once, with the first that was said of it:
// an image whose host is down lacks all of its blobs for one reason. What has no name has
// it in its text.
func failuresByName(all []*images.FetchError) []failure {
	var out []failure
	seen := map[string]bool{}
	for _, f := range all {
		if text := f.Error(); len(f.Names) == 0 && !seen[text] {
			seen[text] = true
			out = append(out, failure{said: text, err: f})
		}
		for _, name := range f.Names {
			if !seen[name] {
				seen[name] = true
				out = append(out, failure{name, f.Host, f.Said(), f})
			}
		}
	}
	return out
}

// failureText is a line for each cause, with what it keeps away. Neither causes nor
// names are without limit: a stack has hundreds of images.
func failureText(all []*images.FetchError) string {
	type cause struct{ host, said string }
	byCause := map[cause][]failure{}
	var order []cause
	for _, f := range failuresByName(all) {
		c := cause{f.host, f.said}
		if byCause[c] == nil {
			order = append(order, c)
		}
		byCause[c] = append(byCause[c], f)
	}
	var out strings.Builder
	for i, c := range order {
		if i == maxListed {
			n := 0
			for _, c := range order[i:] {
				n += len(byCause[c])
			}
			fmt.Fprintf(&out, "and %d more\n", n)
			break
		}
		failed := byCause[c]
		if len(failed) == 1 {
			fmt.Fprintln(&out, images.OneLine(failed[0].err.Error()))
			continue
		}
		fmt.Fprintln(&out, images.OneLine(fmt.Sprintf("%d are incomplete: %s %s", len(failed), c.host, c.said)))
		for i, f := range failed {
			if i == maxListed {
				fmt.Fprintf(&out, "  and %d more\n", len(failed)-i)
				break
			}
			fmt.Fprintf(&out, "  %s\n", images.OneLine(f.name))
		}
	}
	return out.String()
}
