package qemu

import (
	"unicode/utf8"

	"atoll/bundle"
)

// escape is the length of the escape sequence that s starts with: ESC and a byte, or
// ESC [ parameters and a final byte (ECMA-48).
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	if s[1] != '[' {
		return 2
	}
	for i := 2; i < len(s); i++ {
		if s[i] >= 0x40 && s[i] <= 0x7e {
			return i + 1
		}
	}
	return len(s)
}

func decode(s string) (rune, int) { return utf8.DecodeRuneInString(s) }

// cleanStatus makes every text of a guest's status safe for a terminal.
func cleanStatus(s bundle.Status) bundle.Status {
	s.Appliance, s.State, s.Error = clean(s.Appliance), clean(s.State), clean(s.Error)
	for i := range s.Log {
		s.Log[i] = clean(s.Log[i])
	}
	for i, p := range s.Phases {
		s.Phases[i].Name, s.Phases[i].State, s.Phases[i].Message = clean(p.Name), clean(p.State), clean(p.Message)
	}
	return s
}
