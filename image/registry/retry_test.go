package registry_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/imagetest"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
)

const someManifest = `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","layers":[]}`

// sick fails the first requests with the answers given, then serves a manifest.
func sick(answers ...http.HandlerFunc) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if i := int(n.Add(1)); i <= len(answers) {
			answers[i-1](w, r)
			return
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		_, _ = w.Write([]byte(someManifest))
	}
}

func status(code int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(code)
	}
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestRetries(t *testing.T) {
	in90s := time.Unix(1_700_000_000, 0).Add(90 * time.Second).UTC().Format(http.TimeFormat)
	tests := map[string]struct {
		answers []http.HandlerFunc
		works   bool
		least   []time.Duration // sleeps, from half the backoff or what was asked for
	}{
		"unavailable":       {[]http.HandlerFunc{status(503, ""), status(500, ""), status(502, "")}, true, []time.Duration{1, 2, 4}},
		"asked to wait":     {[]http.HandlerFunc{status(429, "70"), status(429, in90s)}, true, []time.Duration{140, 40}},
		"senseless wait":    {[]http.HandlerFunc{status(429, "soon")}, true, []time.Duration{1}},
		"asked too much":    {[]http.HandlerFunc{status(429, "86400")}, false, nil},
		"no end":            {slices.Repeat([]http.HandlerFunc{status(503, "")}, 5), false, []time.Duration{1, 2, 4, 8}},
		"not to be retried": {[]http.HandlerFunc{status(403, "1")}, false, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := imagetest.Serve(t)
			cfg := s.Config()
			cfg.Retry = registry.Retry{Base: time.Second, Max: 100 * time.Second}
			repo, _ := imagetest.Repository(t, cfg, s.Host+"/app")
			s.Replace("/v2/app/manifests/v1", sick(tt.answers...))
			_, err := repo.Manifest(t.Context(), "v1")
			if (err == nil) != tt.works {
				t.Errorf("error %v", err)
			}
			slept := s.Clock.Slept()
			if len(slept) != len(tt.least) {
				t.Fatalf("slept %v", slept)
			}
			for i, units := range tt.least {
				if least := units * time.Second / 2; slept[i] < least || slept[i] > 2*least {
					t.Errorf("sleep %d is %s, wanted %s to %s", i, slept[i], least, 2*least)
				}
			}
		})
	}
}

// The HTTP client itself repeats a request whose kept connection was closed, so
// the number of waits is not that of the failures.
func TestRetryAfterHangUp(t *testing.T) {
	s := imagetest.Serve(t)
	repo, _ := imagetest.Repository(t, s.Config(), s.Host+"/app")
	s.Replace("/v2/app/manifests/v1", sick(hangUp, hangUp, hangUp))
	if _, err := repo.Manifest(t.Context(), "v1"); err != nil || len(s.Clock.Slept()) == 0 {
		t.Errorf("slept %v, %v", s.Clock.Slept(), err)
	}
}

// A request that changes something is made once.
func TestPushesAreNotRepeated(t *testing.T) {
	var posts atomic.Int64
	host := plainServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	clock := &imagetest.Clock{}
	repo, _ := imagetest.Repository(t, registry.Config{InsecureHTTPHosts: []string{host}, Clock: clock}, host+"/app")
	if _, err := repo.PushBlob(t.Context(), strings.NewReader("x")); err == nil || posts.Load() != 1 {
		t.Errorf("%d requests, %v", posts.Load(), err)
	}
}

// blob puts a flaky blob on a server.
func blob(t *testing.T, s *imagetest.Server, f *imagetest.Flaky, cfg registry.Config) (*registry.Repository, ocispec.Descriptor) {
	t.Helper()
	for i := range 3000 {
		f.Blob = fmt.Appendf(f.Blob, "line %d\n", i)
	}
	repo, _ := imagetest.Repository(t, cfg, s.Host+"/app")
	desc := imagetest.Blob(t, repo, "x", f.Blob)
	s.Replace("/v2/app/blobs/"+desc.Digest.String(), f.ServeHTTP)
	return repo, desc
}

func TestBrokenBlobResumes(t *testing.T) {
	s := imagetest.Serve(t)
	f := &imagetest.Flaky{Breaks: []int{1000, 1001, 20_000}}
	repo, desc := blob(t, s, f, s.Config())
	got, err := registry.ReadBlob(t.Context(), repo, desc, 1<<20)
	if err != nil || string(got) != string(f.Blob) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	want := []string{"", "bytes=1000-", "bytes=1001-", "bytes=20000-"}
	if seen := f.Ranges(); !slices.Equal(seen, want) {
		t.Errorf("ranges %q, wanted %q", seen, want)
	}
	if n := len(s.Clock.Slept()); n != 3 {
		t.Errorf("%d waits for 3 breaks", n)
	}
}

// Nothing was consumed, so the whole may come again.
func TestBrokenBlobRestarts(t *testing.T) {
	s := imagetest.Serve(t)
	f := &imagetest.Flaky{Breaks: []int{0}, NoRange: true}
	repo, desc := blob(t, s, f, s.Config())
	if got, err := registry.ReadBlob(t.Context(), repo, desc, 1<<20); err != nil || string(got) != string(f.Blob) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func hangUpOnRanges(f *imagetest.Flaky) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			panic(http.ErrAbortHandler)
		}
		f.ServeHTTP(w, r)
	}
}

func TestBrokenBlobIsGivenUp(t *testing.T) {
	partial := func(contentRange string, code int) func(*imagetest.Flaky) http.HandlerFunc {
		return func(f *imagetest.Flaky) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					f.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Content-Range", contentRange)
				w.WriteHeader(code)
				_, _ = w.Write(f.Blob[1000:])
			}
		}
	}
	size := 0
	for i := range 3000 {
		size += len(fmt.Sprintf("line %d\n", i))
	}
	flaky := func(f *imagetest.Flaky) http.HandlerFunc { return f.ServeHTTP }
	tests := map[string]struct {
		flaky *imagetest.Flaky
		serve func(*imagetest.Flaky) http.HandlerFunc
		want  error
	}{
		"ranges ignored":   {&imagetest.Flaky{Breaks: []int{1000}, NoRange: true}, flaky, registry.ErrNoResume},
		"never ahead":      {&imagetest.Flaky{Breaks: slices.Repeat([]int{1000}, 9)}, flaky, nil},
		"another range":    {&imagetest.Flaky{Breaks: []int{1000}}, partial(fmt.Sprintf("bytes 999-%d/%d", size-1, size), 206), registry.ErrNoResume},
		"another size":     {&imagetest.Flaky{Breaks: []int{1000}}, partial(fmt.Sprintf("bytes 1000-%d/%d", size-1, size+1), 206), registry.ErrNoResume},
		"a shorter range":  {&imagetest.Flaky{Breaks: []int{1000}}, partial(fmt.Sprintf("bytes 1000-%d/%d", size-2, size), 206), registry.ErrNoResume},
		"no range":         {&imagetest.Flaky{Breaks: []int{1000}}, partial("", 206), registry.ErrNoResume},
		"nonsense":         {&imagetest.Flaky{Breaks: []int{1000}}, partial("bytes 1000--1/*", 206), registry.ErrNoResume},
		"not satisfiable":  {&imagetest.Flaky{Breaks: []int{1000}}, partial("", 416), nil},
		"gone in between":  {&imagetest.Flaky{Breaks: []int{1000}}, partial("", 404), registry.ErrNotFound},
		"hung up on":       {&imagetest.Flaky{Breaks: []int{1000}}, hangUpOnRanges, io.ErrUnexpectedEOF},
		"refused in betw.": {&imagetest.Flaky{Breaks: []int{1000}}, partial("", 403), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := imagetest.Serve(t)
			repo, desc := blob(t, s, tt.flaky, s.Config())
			s.Replace("/v2/app/blobs/"+desc.Digest.String(), tt.serve(tt.flaky))
			_, err := registry.ReadBlob(t.Context(), repo, desc, 1<<20)
			if err == nil || !strings.Contains(err.Error(), "broken off at byte 1000 of") || (tt.want != nil && !errors.Is(err, tt.want)) {
				t.Errorf("got %v", err)
			}
			if n := len(tt.flaky.Ranges()); n > 5 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// The rest that a resume brings is held against the digest like everything.
func TestResumedBytesAreVerified(t *testing.T) {
	s := imagetest.Serve(t)
	f := &imagetest.Flaky{Breaks: []int{1000}}
	repo, desc := blob(t, s, f, s.Config())
	f.Blob[len(f.Blob)-1] ^= 1
	_, err := registry.ReadBlob(t.Context(), repo, desc, 1<<20)
	if _, ok := errors.AsType[*registry.DigestError](err); !ok {
		t.Errorf("got %v", err)
	}
}

func TestStalledBlobResumes(t *testing.T) {
	s := imagetest.Serve(t)
	f := &imagetest.Flaky{Breaks: []int{1000}, Stall: true}
	repo, desc := blob(t, s, f, s.Config())
	rc, err := repo.Blob(t.Context(), desc)
	imagetest.Must(t, err)
	defer func() { _ = rc.Close() }()
	got := make([]byte, len(f.Blob))
	readFull(t, rc, got[:1000])
	s.Clock.FireNext() // the next read finds nothing
	readFull(t, rc, got[1000:])
	if string(got) != string(f.Blob) || !slices.Equal(f.Ranges(), []string{"", "bytes=1000-"}) {
		t.Errorf("resumed by %q", f.Ranges())
	}

	cfg := s.Config()
	cfg.Retry.Attempts = 1
	f = &imagetest.Flaky{Breaks: []int{1000}, Stall: true}
	repo, desc = blob(t, s, f, cfg)
	rc, err = repo.Blob(t.Context(), desc)
	imagetest.Must(t, err)
	defer func() { _ = rc.Close() }()
	readFull(t, rc, got[:1000])
	s.Clock.FireNext()
	if _, err := rc.Read(got); !errors.Is(err, registry.ErrStalled) {
		t.Errorf("got %v", err)
	}
}
