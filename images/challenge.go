package images

import (
	"net/http"
	"strings"

	"atoll/bundle/bounds"
)

// challenge is one way to log in that a 401 offers (RFC 9110, 11.3).
type challenge struct {
	scheme string            // lower case
	params map[string]string // names in lower case
}

// challenges reads all WWW-Authenticate lines of an answer, within bounds; one line may hold
// several challenges. What is malformed is skipped, and a line that is too long.
func challenges(h http.Header) []challenge {
	var out []challenge
	for _, line := range h.Values("WWW-Authenticate") {
		if len(out) < bounds.Challenges && len(line) <= bounds.ChallengeBytes {
			out = append(out, parseChallenges(line)...)
		}
	}
	return out[:min(len(out), bounds.Challenges)]
}

// parseChallenges reads one line: SCHEME NAME=VALUE, NAME="VALUE", SCHEME ….
func parseChallenges(s string) []challenge {
	var out []challenge
	comma := true // a scheme comes first or after a comma
	for s != "" && len(out) <= bounds.Challenges {
		switch s[0] {
		case ',':
			comma, s = true, s[1:]
			continue
		case ' ', '\t', '=', '"': // the latter two are malformed here, or pad a token68
			s = s[1:]
			continue
		}
		word := s[:len(s)-len(strings.TrimLeftFunc(s, isWord))]
		s = strings.TrimLeft(s[len(word):], " \t")
		value, isParam := strings.CutPrefix(s, "=")
		switch {
		case isParam:
			var v string
			if v, s = parseValue(strings.TrimLeft(value, " \t")); len(out) > 0 && v != "" { // else the end of a token68
				out[len(out)-1].params[strings.ToLower(word)] = v
			}
		case comma:
			out = append(out, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
		} // else a token68: what Negotiate says, for example
		comma = false
	}
	return out
}

// isWord tells the characters of a scheme, a name or an unquoted value.
func isWord(r rune) bool { return !strings.ContainsRune(" \t,=\"", r) }

// parseValue reads an unquoted or quoted value, and gives what follows it.
func parseValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		rest = strings.TrimLeftFunc(s, isWord)
		return s[:len(s)-len(rest)], rest
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
