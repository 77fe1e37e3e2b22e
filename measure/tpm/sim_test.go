package tpm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

var (
	_ measure.Attester = (*Simulator)(nil)
	_ measure.Verifier = (*Verifier)(nil)
)

func TestSimulator(t *testing.T) {
	vendorDir, guest := t.TempDir(), filepath.Join(t.TempDir(), "guest")
	if err := CreateVendor(vendorDir); err != nil {
		t.Fatal(err)
	}
	if err := CreateVendor(vendorDir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second vendor: %v", err)
	}
	if err := CreateGuest(vendorDir, guest, launch); err != nil {
		t.Fatal(err)
	}
	if err := CreateGuest(vendorDir, guest, launch); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second guest: %v", err)
	}
	for _, path := range []string{filepath.Join(vendorDir, fileCAKey), filepath.Join(guest, fileAKKey)} {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	s, err := OpenSimulator(guest)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := measure.EvidenceOver(context.Background(), s, challenge)
	if err != nil {
		t.Fatal(err)
	}
	read := func(path ...string) []byte {
		raw, err := os.ReadFile(filepath.Join(path...))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	want := measure.Expected{ReportData: measure.BoundTo(challenge), InitData: measure.BoundTo(document)}
	for name, c := range map[string]VerifierConfig{
		"certified": {UnsafeSimulatedRoots: []Authority{{"lab", read(vendorDir, fileBundle)}}},
		"enrolled":  {Enrolled: []EnrolledKeys{{"k", read(guest, fileAK)}}},
	} {
		v, err := NewVerifier(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(context.Background(), ev, want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A runtime extension shows in the next quote.
	if err := s.Device().Extend(Bank, 15, document); err != nil {
		t.Fatal(err)
	}
	again, err := s.Evidence(context.Background(), measure.ReportData{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseEvidence(again)
	if err != nil {
		t.Fatal(err)
	}
	if string(e.PCRs[15]) != string(InitDataValue(document)) {
		t.Errorf("PCR 15 is %x", e.PCRs[15])
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Evidence(ctx, measure.ReportData{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
}

func TestGuestDirectory(t *testing.T) {
	vendorDir, guest := t.TempDir(), filepath.Join(t.TempDir(), "guest")
	if err := CreateVendor(vendorDir); err != nil {
		t.Fatal(err)
	}
	if err := CreateGuest(vendorDir, guest, launch); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(guest, fileLaunch))
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string][2]string{
		"platform":            {`"tpm"`, `"tdx"`},
		"init_data is not":    {`"init_data": "`, `"init_data": "z`},
		"cannot extend PCR 8": {`"init_data": "`, `"init_data": "00`},
	} {
		if err := os.WriteFile(filepath.Join(guest, fileLaunch), []byte(strings.Replace(string(good), change[0], change[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSimulator(guest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	if _, err := OpenSimulator(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	if err := CreateGuest(t.TempDir(), filepath.Join(t.TempDir(), "g"), launch); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no vendor: %v", err)
	}
}

func TestLaunchRefuses(t *testing.T) {
	for want, l := range map[string]Launch{
		"image is empty": {},
		"has a NUL":      {Image: []byte("x"), CommandLine: "a\x00b"},
		"use sha256":     {Image: []byte("x"), InitDataDigest: make([]byte, 48)},
	} {
		if _, err := Predict(l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestPredictTellsInputsApart(t *testing.T) {
	base, err := Predict(launch)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		l    Launch
		pcrs []int
	}{
		"image":        {Launch{[]byte("other"), launch.CommandLine, launch.InitDataDigest}, []int{4, 11}},
		"command line": {Launch{launch.Image, "debug", launch.InitDataDigest}, []int{9, 11}},
		"init-data":    {Launch{launch.Image, launch.CommandLine, nil}, []int{8}},
	} {
		got, err := Predict(c.l)
		if err != nil {
			t.Fatal(err)
		}
		var differ []int
		for i := range got {
			if string(got[i]) != string(base[i]) {
				differ = append(differ, i)
			}
		}
		if len(differ) != len(c.pcrs) || differ[0] != c.pcrs[0] || differ[len(differ)-1] != c.pcrs[len(c.pcrs)-1] {
			t.Errorf("%s changes PCRs %v, want %v", name, differ, c.pcrs)
		}
	}
}
