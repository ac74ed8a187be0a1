package main

import "testing"

func TestByteRate(t *testing.T) {
	for in, want := range map[string]int64{
		"1": 1, "500K": 512000, "500k": 512000, "2.5M": 2621440, "1G": 1 << 30,
		"": 0, "0": 0, "-1": 0, "K": 0, "1KB": 0, "1e3": 0, "0x10": 0, "NaN": 0, "Inf": 0, "99999999T": 0, "1 M": 0,
	} {
		var r byteRate
		if err := r.Set(in); int64(r) != want || (err == nil) != (want > 0) {
			t.Errorf("%q gives %d, %v, want %d", in, r, err, want)
		}
	}
}
