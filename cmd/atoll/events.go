package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"atoll/images"
)

// eventsHelp documents what --json writes.
const eventsHelp = `
With --json, stdout gets one JSON object per line. What it is says "event"; fields may be
added in later versions, and none is renamed. Sizes are bytes.

  reading   done, total: images whose manifests were read, or could not be; then those
            with manifests for other platforms, if any
  checking  done, total: bytes of which is known whether the store has them; this and
            reading at most once a second and at their end, before start
  start     bytes, blobs: what the store lacks; hosts: an array of host, blobs, bytes
  progress  done, total: of all; moving: an array of name, digest, host, done, total;
            at most one a second
  blob      name, digest, host, bytes: it is in the store
  failed    name, host, error: an image, file, package or source is incomplete
  end       ok; done, total; left: what has not come, null if unknown; failed: how many;
            error, if it is none of those
`

// eventsEvery is how often progress is written.
const eventsEvery = time.Second

// events writes what a mirror does for machines. Nil writes nothing.
type events struct {
	enc         *json.Encoder
	err         error // the first of writing
	started     bool
	told        time.Time
	done, total int64
}

func newEvents(w io.Writer) *events { return &events{enc: json.NewEncoder(w)} }

type hostEvent struct {
	Host  string `json:"host"`
	Blobs int    `json:"blobs"`
	Bytes int64  `json:"bytes"`
}

type movingEvent struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Host   string `json:"host"`
	Done   int64  `json:"done"`
	Total  int64  `json:"total"`
}

func (e *events) write(event any) {
	if err := e.enc.Encode(event); err != nil && e.err == nil {
		e.err = fmt.Errorf("writing events: %w", err)
	}
}

// before writes how far is what comes before the start.
func (e *events) before(event string, now time.Time, done, total int64) {
	if e == nil || done < total && now.Sub(e.told) < eventsEvery {
		return
	}
	e.told = now
	e.write(struct {
		Event string `json:"event"`
		Done  int64  `json:"done"`
		Total int64  `json:"total"`
	}{event, done, total})
}

// progress writes what is new.
func (e *events) progress(now time.Time, p images.Progress) {
	if e == nil {
		return
	}
	e.done, e.total = p.Done, p.Total
	if !e.started {
		e.started, e.told = true, now
		hosts := []hostEvent{}
		for _, h := range p.Hosts {
			hosts = append(hosts, hostEvent(h))
		}
		e.write(struct {
			Event string      `json:"event"`
			Bytes int64       `json:"bytes"`
			Blobs int         `json:"blobs"`
			Hosts []hostEvent `json:"hosts"`
		}{"start", p.Total, p.Blobs, hosts})
	}
	for _, b := range p.Finished {
		e.write(struct {
			Event  string `json:"event"`
			Name   string `json:"name"`
			Digest string `json:"digest"`
			Host   string `json:"host"`
			Bytes  int64  `json:"bytes"`
		}{"blob", b.Name, b.Digest.String(), b.Host, b.Total})
	}
	if now.Sub(e.told) < eventsEvery {
		return
	}
	e.told = now
	moving := []movingEvent{}
	for _, b := range p.Moving {
		moving = append(moving, movingEvent{b.Name, b.Digest.String(), b.Host, b.Done, b.Total})
	}
	e.write(struct {
		Event  string        `json:"event"`
		Done   int64         `json:"done"`
		Total  int64         `json:"total"`
		Moving []movingEvent `json:"moving"`
	}{"progress", p.Done, p.Total, moving})
}

// end writes how it ended, and what failed. It returns the error of writing, if any.
func (e *events) end(err error) error {
	if e == nil {
		return nil
	}
	end := struct {
		Event  string `json:"event"`
		OK     bool   `json:"ok"`
		Done   int64  `json:"done"`
		Total  int64  `json:"total"`
		Left   *int64 `json:"left"`
		Failed int    `json:"failed"`
		Error  string `json:"error,omitempty"`
	}{Event: "end", OK: err == nil, Done: e.done, Total: e.total}
	left := e.total - e.done
	if e.started {
		end.Left = &left
	}
	var incomplete *images.IncompleteError
	switch {
	case errors.As(err, &incomplete):
		failed := failuresByName(images.Failures(incomplete))
		for _, f := range failed {
			e.write(struct {
				Event string `json:"event"`
				Name  string `json:"name"`
				Host  string `json:"host"`
				Error string `json:"error"`
			}{"failed", f.name, f.host, f.said})
		}
		if left = max(left, incomplete.Left); incomplete.Left >= 0 {
			end.Left = &left
		}
		end.Failed = len(failed)
	case err != nil:
		end.Error = err.Error()
	}
	e.write(end)
	return e.err
}
