package registry

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestNewManifest(t *testing.T) {
	const manifest, index = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	tests := []struct {
		name, doc, transport string
		want                 string
		index                bool
	}{
		{"manifest", `{"schemaVersion":2,"mediaType":"` + manifest + `","config":{},"layers":[]}`, manifest, "", false},
		{"type only from the transport", `{"schemaVersion":2,"layers":[]}`, manifest, "", false},
		{"type from nowhere: manifest", `{"schemaVersion":2,"layers":[]}`, "", "", false},
		{"type from nowhere: index", `{"schemaVersion":2,"manifests":[]}`, "", "", true},
		{"index", `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}`, index, "", true},
		{"the types differ", `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}`, manifest, "calls itself", false},
		{"index with layers", `{"mediaType":"` + index + `","manifests":[],"layers":[]}`, index, "members of a manifest", false},
		{"index with Layers", `{"mediaType":"` + index + `","manifests":[],"Layers":[]}`, index, "members of a manifest", false},
		{"manifest with manifests", `{"layers":[],"manifests":[]}`, manifest, "members of an index", false},
		{"both, type from nowhere", `{"layers":[],"manifests":[]}`, "", "members of a manifest", false},
		{"duplicate layers", `{"layers":[],"layers":[]}`, manifest, "duplicate", false},
		{"schema 1", `{"schemaVersion":1}`, "application/vnd.docker.distribution.manifest.v1+json", "not supported", false},
		{"trailing", `{"layers":[]}{}`, manifest, "after the end", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := newManifest([]byte(tt.doc), tt.transport, "")
			if tt.want == "" {
				if err != nil || m.IsIndex() != tt.index || m.Digest != digest.FromString(tt.doc) {
					t.Fatalf("got %+v, %v", m, err)
				}
				return
			}
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want malformed: %s", err, tt.want)
			}
		})
	}
	_, err := newManifest([]byte(`{"layers":[]}`), manifest, someDigest)
	if _, ok := errors.AsType[*DigestError](err); !ok {
		t.Fatalf("a manifest of another digest: %v", err)
	}
}

// A short text can list a million descriptors. What is made of it stays within bounds.
func TestListsOfMillions(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat("{},", MaxManifest/3-100), ",")
	for name, read := range map[string]func() error{
		"index": func() error {
			m, err := newManifest([]byte(`{"schemaVersion":2,"manifests":[`+many+`]}`), ocispec.MediaTypeImageIndex, "")
			if err == nil {
				_, err = m.Index()
			}
			return err
		},
		"manifest": func() error {
			m, err := newManifest([]byte(`{"schemaVersion":2,"layers":[`+many+`]}`), ocispec.MediaTypeImageManifest, "")
			if err == nil {
				_, err = m.Image()
			}
			return err
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := read()
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "more than 4096") {
			t.Errorf("%s: %.200v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 10*MaxManifest {
			t.Errorf("%s: %d bytes of memory for a text of %d", name, took, MaxManifest)
		}
	}
}

func TestChoosePlatform(t *testing.T) {
	entry := func(os, arch, variant, name string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(name), Platform: &ocispec.Platform{OS: os, Architecture: arch, Variant: variant}}
	}
	index := &ocispec.Index{Manifests: []ocispec.Descriptor{
		{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("no platform")},
		entry("windows", "amd64", "", "windows"), entry("unknown", "unknown", "", "attestation"),
		entry("linux", "amd64", "v3", "amd64v3"), entry("linux", "amd64", "", "amd64"),
		entry("linux", "arm64", "v8", "arm64"), entry("linux", "arm", "v6", "armv6"), entry("linux", "arm", "v7", "armv7"),
		{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("nested"), Platform: &ocispec.Platform{OS: "linux", Architecture: "riscv64"}},
	}}
	tests := []struct {
		p    Platform
		want string
	}{
		{Platform{"linux", "amd64", ""}, "amd64"}, {Platform{"linux", "amd64", "v3"}, "amd64v3"},
		{Platform{"linux", "arm64", ""}, "arm64"}, {Platform{"linux", "arm64", "v8"}, "arm64"},
		{Platform{"linux", "arm", ""}, "armv7"}, {Platform{"linux", "arm", "v6"}, "armv6"},
		{Platform{"linux", "s390x", ""}, ""}, {Platform{"linux", "riscv64", ""}, ""},
	}
	for _, tt := range tests {
		d, err := tt.p.choose(index)
		if tt.want == "" {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v: %v, %v", tt.p, d.Digest, err)
			}
		} else if err != nil || d.Digest != digest.FromString(tt.want) {
			t.Errorf("%v: %v, %v; want %s", tt.p, d.Digest, err, tt.want)
		}
	}
}

func TestVerifyReader(t *testing.T) {
	const body = "the bytes of a blob"
	desc := ocispec.Descriptor{Digest: digest.FromString(body), Size: int64(len(body))}
	read := func(s string) error {
		// One byte at a time and all at once must agree.
		_, small := io.ReadAll(newVerifyReader(io.NopCloser(oneByte{strings.NewReader(s)}), desc, nil))
		_, large := io.ReadAll(newVerifyReader(io.NopCloser(strings.NewReader(s)), desc, nil))
		if (small == nil) != (large == nil) {
			t.Errorf("%q: %v against %v", s, small, large)
		}
		return large
	}
	if err := read(body); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"", body[:5], body + "x"} {
		if e, ok := errors.AsType[*SizeError](read(s)); !ok || e.Wanted != desc.Size || e.Seen == e.Wanted {
			t.Errorf("%q passed for the blob: %v", s, e)
		}
	}
	if _, ok := errors.AsType[*DigestError](read("The bytes of a blob")); !ok {
		t.Error("a flipped bit passed")
	}
}

func TestDescriptorsThatLie(t *testing.T) {
	for _, size := range []string{"-1", "9223372036854775807"} {
		m, err := newManifest([]byte(`{"schemaVersion":2,"config":{"digest":"`+someDigest+`","size":1},"layers":[{"digest":"`+someDigest+`","size":`+size+`}]}`), ocispec.MediaTypeImageManifest, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Image(); !errors.Is(err, ErrMalformed) {
			t.Errorf("a layer of %s bytes: %v", size, err)
		}
	}
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"`+someDigest+`","size":1},"layers":[{"digest":"`+someDigest+`","size":2}]}`), ocispec.MediaTypeImageManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"`+someDigest+`","platform":{"os":"linux","architecture":"amd64"}}]}`), "")
	f.Fuzz(func(t *testing.T, raw []byte, mediaType string) {
		m, err := newManifest(raw, mediaType, "")
		if err != nil {
			return
		}
		image, ierr := m.Image()
		index, xerr := m.Index()
		if ierr == nil && xerr == nil {
			t.Fatal("one document is both image and index")
		}
		if ierr == nil {
			for _, d := range image.Layers {
				if CheckDigest(d.Digest) != nil || d.Size < 0 {
					t.Fatalf("accepted %v", d)
				}
			}
		}
		if xerr == nil {
			if d, err := Native().choose(index); err == nil && CheckDigest(d.Digest) != nil {
				t.Fatalf("chose %v", d)
			}
		}
	})
}
