package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/pause"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/synthimage"
	"github.com/vouchsafe-cc/vouchsafe/tests/internal/world"
)

// The gates of what the agent may hold.
const (
	gateIdle = 35e6
	gatePull = 64e6
)

// Lines of /proc/PID/status, in kB.
const (
	residentNow  = "VmRSS:"
	residentPeak = "VmHWM:"
)

func memoryOf(pid int, line string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), line); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.Join(fmt.Errorf("process %d has no %s", pid, line), lines.Err())
}

// resetPeak makes the peak what is resident now (proc(5), clear_refs).
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// memory sets the whole stage: a broker, a registry, an encrypted and signed
// image, and a guest that attests for its keys.
func memory(ctx context.Context, o options, r *report) (err error) {
	dir, err := os.MkdirTemp("", "agentbench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w, err := world.New(filepath.Join(dir, "w"), o.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	vendor, ref, err := stage(ctx, w, filepath.Join(dir, "image"), o.pullMB)
	if err != nil {
		return err
	}
	g, err := w.Launch(ctx, "bench", vendor, world.CommandLine, world.Pod{Image: ref})
	if err != nil {
		return err
	}
	if err := g.Kata().Pod(ctx); err != nil {
		return err
	}
	if _, err := g.Net.Get(ctx, "http://127.0.0.1:8006/cdh/resource/"+world.SecretResource); err != nil {
		return err
	}
	peak, err := memoryOf(g.PID(), residentPeak)
	if err != nil {
		return err
	}
	if err := pause.For(ctx, 5*time.Second); err != nil {
		return err
	}
	idle, err := memoryOf(g.PID(), residentNow)
	if err != nil {
		return err
	}
	r.gate("resident, idle after attestation", mb(idle), "peak until then "+mb(peak), "35 MB", idle < gateIdle)
	config, err := w.ImageConfig(ctx, ref)
	if err != nil {
		return err
	}
	if err := resetPeak(g.PID()); err != nil {
		return err
	}
	begin := time.Now()
	if err := g.Kata().Container(ctx, "app", ref, config); err != nil {
		return err
	}
	took := time.Since(begin)
	if peak, err = memoryOf(g.PID(), residentPeak); err != nil {
		return err
	}
	r.gate(fmt.Sprintf("resident, pull of %d MB, peak", o.pullMB), mb(peak), fmt.Sprintf("in %.1f s", took.Seconds()), "64 MB", peak < gatePull)
	return nil
}

func stage(ctx context.Context, w *world.World, image string, megabytes int) (vendor, ref string, err error) {
	if vendor, err = w.Vendor(ctx, "demo"); err != nil {
		return "", "", err
	}
	if err = w.StartBroker(ctx, map[string]string{"demo": vendor + "/root.pem"}); err != nil {
		return "", "", err
	}
	if err = w.StartRegistry(); err != nil {
		return "", "", err
	}
	if err = synthimage.Write(image, megabytes); err != nil {
		return "", "", err
	}
	if ref, err = w.Encrypt(ctx, "oci:"+image, "demo/large:1"); err != nil {
		return "", "", err
	}
	signer, err := w.Keygen(ctx, "shipper")
	if err != nil {
		return "", "", err
	}
	if err = w.Sign(ctx, ref, signer); err != nil {
		return "", "", err
	}
	if _, err = w.RegisterMeasurement(ctx, world.CommandLine); err != nil {
		return "", "", err
	}
	return vendor, ref, w.Policies(ctx, signer, "a greeting")
}
