package bundle

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// AptSource is a source of Debian packages, of sources.list(5). It holds nothing that
// makes apt take packages for which no key vouches, but for Trusted.
type AptSource struct {
	// Trusted says that apt need find no signature: whoever can change the archive, or
	// what comes from it, decides what is installed.
	Trusted bool

	options    []string // NAME=VALUE
	uri, suite string
	components []string
}

var (
	// No quote, bracket, comment or escape, by which apt would see other words.
	aptWord   = regexp.MustCompile(`^[A-Za-z0-9$(][A-Za-z0-9.,:;=@+~_/$()&?-]*$`)
	aptURI    = regexp.MustCompile(`^(https?://[A-Za-z0-9.:_\[\]-]+(/|$)|(file|copy):/)[A-Za-z0-9.,:;=@+~_/$()&?%-]*$`)
	aptOption = regexp.MustCompile(`^([a-z-]+)=([A-Za-z0-9/][A-Za-z0-9.,:@+~_/$()-]*)$`)
)

// aptOptions are the options that a source may have. The others are those that let apt
// do without a signature, and what no apt has heard of.
var aptOptions = []string{"arch", "lang", "target", "pdiffs", "by-hash", "signed-by", "check-valid-until",
	"valid-until-min", "valid-until-max", "check-date", "date-max-future", "inrelease-path", "snapshot"}

// ParseAptSource reads a source in one-line style: "deb [OPTIONS] URI SUITE COMPONENT…".
func ParseAptSource(line string) (*AptSource, error) {
	line = strings.TrimSpace(strings.ReplaceAll(line, "\t", " "))
	if !isLine(line) {
		return nil, errors.New("is not one line of text")
	}
	rest, ok := strings.CutPrefix(line, "deb ")
	if !ok {
		return nil, errors.New(`is not like "deb [OPTIONS] URI SUITE COMPONENT…"`)
	}
	var s AptSource
	if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "[") {
		options, after, ok := strings.Cut(rest[1:], "]")
		if !ok {
			return nil, errors.New("has options that no bracket ends")
		}
		for _, o := range strings.Fields(options) {
			if err := s.addOption(o); err != nil {
				return nil, err
			}
		}
		rest = after
	}
	words := strings.Fields(rest)
	if len(words) < 2 {
		return nil, errors.New(`is not like "deb [OPTIONS] URI SUITE COMPONENT…"`)
	}
	s.uri, s.suite, s.components = words[0], words[1], words[2:]
	if err := CheckAptURI(s.uri); err != nil {
		return nil, err
	}
	for _, w := range words[1:] {
		if !aptWord.MatchString(strings.TrimPrefix(w, "./")) && w != "./" && w != "/" {
			return nil, fmt.Errorf("%q is not a suite or component", w)
		}
	}
	if flat := strings.HasSuffix(s.suite, "/"); flat == (len(words) > 2) {
		return nil, errors.New("a suite has components, unless it ends in a slash")
	}
	return &s, nil
}

func (s *AptSource) addOption(o string) error {
	name, value, _ := strings.Cut(o, "=")
	name = strings.ToLower(strings.TrimRight(name, "+-"))
	switch {
	case name == "trusted" && value == "yes":
		s.Trusted = true
		return nil
	case name == "trusted":
		return errors.New(`trusted is "yes", or is not said`)
	case strings.HasPrefix(name, "allow-"):
		return fmt.Errorf("option %s is not taken: %w", name, ErrUnauthenticated)
	}
	m := aptOption.FindStringSubmatch(o)
	if m == nil || !slices.Contains(aptOptions, m[1]) {
		return fmt.Errorf("%q is not an option that a source may have", o)
	}
	s.options = append(s.options, o)
	return nil
}

// String is the source as apt reads it.
func (s *AptSource) String() string {
	options := slices.Clone(s.options)
	if s.Trusted {
		options = append(options, "trusted=yes")
	}
	words := []string{"deb"}
	if len(options) > 0 {
		words = append(words, "["+strings.Join(options, " ")+"]")
	}
	return strings.Join(slices.Concat(words, []string{s.uri, s.suite}, s.components), " ")
}

// Suite is the release that is read, like bookworm-updates.
func (s *AptSource) Suite() string { return s.suite }

// CheckAptURI refuses what is no URI of an archive that packages can be fetched from, and
// one with a login in it, which errors and logs would tell.
func CheckAptURI(uri string) error {
	if login.MatchString(uri) {
		return errors.New("credentials do not go into the URL: apt takes them from /etc/apt/auth.conf.d of this machine")
	}
	if _, err := url.Parse(uri); err != nil || !aptURI.MatchString(uri) {
		return fmt.Errorf("%q is not an archive's URL of a kind (http, https, file, copy) that can be fetched from", uri)
	}
	return nil
}
