package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// What atoll shall reach in every setting.
const (
	warmGoal   = 1.0   // seconds per 1000 blobs
	memoryGoal = 200e6 // bytes
)

// explain prints how the pullers are run and what is counted.
func explain(pullers []*puller) {
	for _, p := range pullers {
		fmt.Printf("  %-8s %s\n", p.name, p.how)
	}
	fmt.Print(`The images are single-platform, in OCI's media types, so that all move the same bytes.
Atoll hashes and fsyncs every blob. Beside the images it mirrors 3 files and the packages
of a node, all of some bytes and on disk; it renders a stack without components. Its peers
ask for tags as they pull, which atoll does in lock.
Peers give each image a layout of its own, as they are used; NAME-1 has one for all.
All go through one counting proxy. WIRE is of both ways, with heads; that of a resumed run
is with the killed one's, in times the blobs' bytes. Before each run disks are synced.
`)
}

// report prints the table and how it compares with what is to be reached.
func (c *contest) report(out io.Writer) error {
	fastest := map[pullerKind]*puller{}
	for _, p := range c.pullers {
		if f := fastest[p.kind]; f == nil || median(p.coldSeconds) < median(f.coldSeconds) {
			fastest[p.kind] = p
		}
	}
	least, best, atBest, atoll := fastest[floor], fastest[peer], fastest[shared], fastest[own]
	fmt.Fprintf(out, "\n%s; medians of %d; peaks of memory below %s are not seen\n", c.title, len(least.coldSeconds), megabytes(c.unseen))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOOL\tCOLD\t/ FLOOR\tBEST PEER /\tWARM\tRESUMED\tWIRE COLD\tWIRE WARM\tWIRE RESUMED\tDISK\tPEAK MEMORY")
	for _, p := range c.pullers {
		cold := median(p.coldSeconds)
		fmt.Fprintf(w, "%s\t%.2f s\t%.2f\t%.2f\t", p.name, cold, cold/median(least.coldSeconds), median(best.coldSeconds)/cold)
		if len(p.warmSeconds) == 0 {
			fmt.Fprintf(w, "\t\t%s\t\t\t", megabytes(p.coldWire))
		} else {
			fmt.Fprintf(w, "%.2f s\t%.2f s\t%s\t%s\t%.2f\t", median(p.warmSeconds), median(p.resumedSeconds),
				megabytes(p.coldWire), megabytes(p.warmWire), float64(p.resumedWire)/float64(c.set.bytes))
		}
		fmt.Fprintf(w, "%s\t%s\n", megabytes(p.disk), megabytes(p.memory))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	cold, lock, other := median(atoll.coldSeconds), median(c.lockSeconds), median(best.coldSeconds)
	_, err := fmt.Fprintf(out, `atoll lock: %.2f s, %s on the wire; lock and mirror are %.2f times as fast as %s
atoll mirror: %.2f times as fast as %s (to reach: %.1f), %.2f times as %s; %.2f of the floor (%.2f); warm %.2f s per 1000 blobs (%.0f); %s of memory (%s)
`, lock, megabytes(c.lockWire), other/(lock+cold), best.name,
		other/cold, best.name, c.timesPeer, median(atBest.coldSeconds)/cold, atBest.name, cold/median(least.coldSeconds), c.atFloor,
		median(atoll.warmSeconds)/float64(len(c.set.blobs))*1000, warmGoal, megabytes(atoll.memory), megabytes(memoryGoal))
	return err
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
