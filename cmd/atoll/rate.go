package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteRate is a flag's value: bytes a second, like 500K or 2.5M. As curl's, its units are
// powers of 1024.
type byteRate int64

func (r *byteRate) Set(s string) error {
	number, unit := strings.ToUpper(s), 1.0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("KMGT", number[n-1]); i >= 0 {
			number, unit = number[:n-1], math.Pow(1024, float64(i+1))
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f*unit >= 1 && f*unit <= math.MaxInt64/2) || strings.ContainsAny(number, "EXP_") {
		return fmt.Errorf("%q is not a rate like 500K or 2.5M", s)
	}
	*r = byteRate(f * unit)
	return nil
}

func (r *byteRate) String() string {
	if *r == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*r), 10)
}

func (*byteRate) Type() string { return "rate" }
