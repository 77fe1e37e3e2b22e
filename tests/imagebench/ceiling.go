package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// part is the CPU time of one thing over some bytes, on one core.
type part struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"`
}

func (p part) of(bytes int64) float64 {
	if p.Bytes == 0 {
		return 0
	}
	return p.Seconds / float64(p.Bytes) * float64(bytes)
}

// A ceiling is the least time that the parts of a pull take, each by itself on
// these cores: seconds of CPU time of each, and of wall time of all together.
type ceiling struct {
	parts []string
	cpu   float64
	wall  float64
	// decrypting is what of cpu a plain pull of the same image does not have.
	decrypting float64
}

func (c ceiling) String() string {
	return fmt.Sprintf("%.2f s of wall time, %.2f s of CPU time: %s", c.wall, c.cpu, strings.Join(c.parts, ", "))
}

// measureParts measures the parts over the image's own layers, once: the machine
// makes files at rates that differ by half from minute to minute, so each round
// of pulls has its own.
func (r *runner) measureParts(ctx context.Context) error {
	p, err := newPlace(ctx, r.memory, r.testCase.disk)
	if err != nil {
		return err
	}
	var biggest string
	var most int64
	for d, file := range r.image.files {
		if info, err := os.Stat(file); err == nil && info.Size() > most {
			most, biggest = info.Size(), d.String()
		}
	}
	args := []string{"rates", "--tar", strings.Join(r.archives, ","), "--dir", p.dir,
		"--url", "http://" + r.registry.host + "/v2/" + imageName + "/blobs/" + biggest}
	if suffix, ok := map[format]string{gzipped: ".gz", zstandard: ".zst"}[r.testCase.format]; ok {
		args = append(args, "--"+string(r.testCase.format), strings.Join(r.archives, suffix+",")+suffix)
	}
	if err = touch(r.footprint()); err != nil {
		return errors.Join(err, p.undo())
	}
	raw, err := exec.CommandContext(ctx, r.bin+"/imagepull", args...).Output()
	if err := errors.Join(err, p.undo()); err != nil {
		return err
	}
	var parts map[string]part
	if err := json.Unmarshal(raw, &parts); err != nil {
		return err
	}
	if r.parts == nil {
		r.parts = map[string][]part{}
	}
	for name, p := range parts {
		r.parts[name] = append(r.parts[name], p)
	}
	return nil
}

// ceiling is that of the medians of all rounds.
func (r *runner) ceiling() ceiling {
	parts := map[string]part{}
	for name, all := range r.parts {
		slices.SortFunc(all, func(a, b part) int { return cmp.Compare(a.of(1), b.of(1)) })
		parts[name] = all[len(all)/2]
	}
	in, out := r.image.compressed, r.image.size
	var c ceiling
	add := func(name string, seconds float64) {
		if seconds == 0 {
			return
		}
		c.parts = append(c.parts, fmt.Sprintf("%s %.2f", name, seconds))
		c.cpu += seconds
	}
	decoding := parts[string(r.testCase.format)].of(out)
	add("receive", parts["receive"].of(in))
	add("digest", parts["hash"].of(in))
	if r.testCase.encrypted {
		add("HMAC", parts["hash"].of(in))
		add("cipher", parts["cipher"].of(in))
		c.decrypting = parts["hash"].of(in) + parts["cipher"].of(in)
		if r.testCase.format == uncompressed { // a plain pull has its digest for a diffID
			c.decrypting += parts["hash"].of(out)
		}
	}
	add(string(r.testCase.format), decoding)
	if r.testCase.encrypted || r.testCase.format != uncompressed { // else the digest is the diffID
		add("diffID", parts["hash"].of(out))
	}
	add("files", parts["files"].of(out))
	c.wall = c.cpu / float64(runtime.NumCPU())
	if r.testCase.size == single { // one stream is decoded on one core
		c.wall = max(c.wall, decoding)
	}
	return c
}
