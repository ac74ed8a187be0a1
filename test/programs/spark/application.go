package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// application is what spark-submit is asked to start.
type application struct {
	name, class, file string
	args              []string
	conf              map[string]string
}

// ignored are options that matter to Spark itself alone.
var ignored = map[string]bool{
	"--jars": true, "--packages": true, "--exclude-packages": true, "--repositories": true,
	"--py-files": true, "--files": true, "--archives": true, "--proxy-user": true,
}

// parse reads spark-submit's command line.
func parse(args []string) (application, error) {
	a := application{conf: map[string]string{}}
	for len(args) > 0 && strings.HasPrefix(args[0], "--") {
		option := args[0]
		if len(args) < 2 {
			return a, fmt.Errorf("%s has no value", option)
		}
		value := args[1]
		args = args[2:]
		switch option {
		case "--master":
			if !strings.HasPrefix(value, "k8s://") {
				return a, fmt.Errorf("%s is not Kubernetes", value)
			}
		case "--deploy-mode":
			if value != "cluster" {
				return a, fmt.Errorf("deploy mode %s: only cluster has a driver pod", value)
			}
		case "--class":
			a.class = value
		case "--name":
			a.name = value
		case "--conf":
			key, value, ok := strings.Cut(value, "=")
			if !ok {
				return a, fmt.Errorf("--conf %s is not KEY=VALUE", key)
			}
			a.conf[key] = value
		default:
			if !ignored[option] {
				return a, fmt.Errorf("%s is not known", option)
			}
		}
	}
	if len(args) == 0 {
		return a, errors.New("no file of the application")
	}
	a.file, a.args = args[0], args[1:]
	return a, nil
}

// under are the settings whose keys have a prefix, by the rest of the key.
func (a application) under(prefix string) map[string]string {
	found := map[string]string{}
	for key, value := range a.conf {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			found[rest] = value
		}
	}
	return found
}

// setting is the first of the keys that is set, or the default.
func (a application) setting(otherwise string, keys ...string) string {
	for _, key := range keys {
		if v := a.conf[key]; v != "" {
			return v
		}
	}
	return otherwise
}

// memory of the driver in MiB: its heap, and a tenth of that or what is set for all else.
func (a application) memory() (int64, error) {
	heap, err := mebibytes(a.setting("1g", "spark.driver.memory"))
	if err != nil {
		return 0, err
	}
	overhead := max(heap/10, 384)
	if v := a.conf["spark.driver.memoryOverhead"]; v != "" {
		if overhead, err = mebibytes(v); err != nil {
			return 0, err
		}
	}
	return heap + overhead, nil
}

// mebibytes reads a size as Java's options have it; a number alone is of MiB.
func mebibytes(s string) (int64, error) {
	number, factor := strings.ToLower(s), int64(1)
	for suffix, f := range map[string]int64{"m": 1, "g": 1 << 10, "t": 1 << 20} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, factor = n, f
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return n * factor, nil
}
