package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stageOf tells by the innermost function that is known which stage of the
// pipeline a sample belongs to. What reads is on the stack of what it reads for,
// so the order along the stack decides, and within one function this order.
var stageOf = []struct{ part, stage string }{
	{"image/internal/inflate.", "inflate"},
	{"klauspost/compress/", "decompress"},
	{"crypt.(*Decrypter)", "decrypt, HMAC"},
	{"registry.(*verifyReader)", "digest"},
	{"(*diffIDCheck)", "diffID"},
	{"image/unpack.", "unpack"},
	{"archive/tar.", "unpack"},
	{"net/http.", "receive"},
	{"registry.(*", "receive"},
	{"image/store.", "store"},
	{"image/pull.", "pipeline"},
	{"runtime.gcBgMarkWorker", "garbage collection"},
	{"runtime.bgsweep", "garbage collection"},
	{"runtime.bgscavenge", "garbage collection"},
	{"runtime.mcall", "scheduling"},
	{"runtime.mstart", "scheduling"},
}

// profile pulls once more, with a CPU profile, and says where the time went.
func (r *runner) profile(ctx context.Context, dir string) (string, error) {
	t := own(r.options, false)
	t.profile = filepath.Join(dir, "profile")
	if r.profiles != "" {
		t.profile = filepath.Join(r.profiles, strings.ReplaceAll(r.testCase.name(), "/", "-")+".pprof")
		if err := os.MkdirAll(r.profiles, 0o755); err != nil {
			return "", err
		}
	}
	if _, _, err := r.pull(ctx, t); err != nil {
		return "", err
	}
	text, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", t.program, t.profile).Output()
	if err != nil {
		return "", fmt.Errorf("go tool pprof: %w", err)
	}
	return summary(string(text)), nil
}

// summary adds up the traces as pprof prints them: behind a line of dashes the
// time with the innermost function, then one caller a line.
func summary(traces string) string {
	total := map[string]time.Duration{}
	for _, trace := range strings.Split(traces, "-----------+-------------------------------------------------------\n")[1:] {
		lines := strings.Split(strings.TrimSpace(trace), "\n")
		spent, innermost, _ := strings.Cut(strings.TrimSpace(lines[0]), " ")
		d, err := time.ParseDuration(spent)
		if err != nil {
			continue
		}
		lines[0] = innermost
		total[stage(lines)] += d
	}
	var list []string
	for _, s := range slices.SortedFunc(maps.Keys(total), func(a, b string) int { return cmp.Compare(total[b], total[a]) }) {
		list = append(list, fmt.Sprintf("%s %.2f", s, total[s].Seconds()))
	}
	return strings.Join(list, ", ")
}

func stage(stack []string) string {
	for _, function := range stack {
		for _, s := range stageOf {
			if strings.Contains(function, s.part) {
				return s.stage
			}
		}
	}
	return "other"
}
