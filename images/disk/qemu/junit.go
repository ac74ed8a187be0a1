package qemu

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"time"

	"atoll/bundle"
)

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"` // seconds
	Cases    []junitCase `xml:"testcase"`
	Console  string      `xml:"system-out,omitempty"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
	Skipped *struct{}     `xml:"skipped"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit reports a boot, as [Boot] returned it, in JUnit's XML: a test case for the
// start of the operating system and one for each phase. The error is told by the phase
// it stopped; phases that were not reached are skipped. The result may be nil.
func WriteJUnit(w io.Writer, name string, r *Result, err error) error {
	if r == nil {
		r = &Result{}
	}
	start := r.Start
	if start == 0 {
		start = r.Duration // it never got further
	}
	s := junitSuite{Name: name, Time: seconds(r.Duration)}
	s.Cases = append(s.Cases, junitCase{Class: name, Name: "start", Time: seconds(start)})
	at := 0 // the case to blame
	for _, p := range r.Status.Phases {
		c := junitCase{Class: name, Name: p.Name, Time: fmt.Sprintf("%.3f", p.Seconds)}
		switch p.State {
		case bundle.StateRunning, bundle.StateFailed:
			at = len(s.Cases)
		case bundle.StatePending:
			c.Skipped = &struct{}{}
			s.Skipped++
		}
		s.Cases = append(s.Cases, c)
	}
	if at == 0 && r.Status.State != "" { // between two phases, or after the last
		s.Cases = append(s.Cases, junitCase{Class: name, Name: "ready", Time: "0.000"})
		at = len(s.Cases) - 1
	}
	if err != nil {
		s.Cases[at].Failure = failure(err)
		s.Failures = 1
		for _, l := range r.Console {
			s.Console += l + "\n"
		}
	}
	s.Tests = len(s.Cases)
	return encode(w, s)
}

func failure(err error) *junitFailure {
	f := &junitFailure{Message: err.Error(), Text: err.Error()}
	var guest *GuestError
	if errors.As(err, &guest) {
		f.Message = guest.Reason
	}
	return f
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

func encode(w io.Writer, s junitSuite) error {
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("writing JUnit report: %w", err)
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("writing JUnit report: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}
