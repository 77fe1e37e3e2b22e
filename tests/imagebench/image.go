package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

const (
	imageName    = "bench/image"
	imageTag     = "v1"
	manifestType = ocispec.MediaTypeImageManifest
	kekName      = "kbs:///default/image-kek/bench"
)

// keys open the encrypted images: ours by a packet of the broker, the peers by
// a JWE, because they have no broker.
type keys struct {
	kek secret.Bytes
	rsa *rsa.PrivateKey
}

func newKeys() (keys, error) {
	k, err := rsa.GenerateKey(rand.Reader, 3072)
	return keys{kek: secret.Random(32), rsa: k}, err
}

// An image is what the registry offers.
type image struct {
	manifest, config []byte
	digest           digest.Digest
	files            map[digest.Digest]string // by blob
	compressed, size int64                    // bytes of all layers, as sent and as archives
}

// layer is one layer, as a file.
type layer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
	file   string
	size   int64 // of the archive
}

// build makes an image of the archives in the case's form. Encrypted layers go
// below dir; the others are kept beside the archives.
func (c testCase) build(ctx context.Context, archives []string, dir string, k keys) (*image, error) {
	layers := make([]layer, len(archives))
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.NumCPU())
	for i, archive := range archives {
		work.Go(func() error {
			l, err := c.layer(ctx, archive)
			if err == nil && c.encrypted {
				err = l.encrypt(filepath.Join(dir, fmt.Sprint("layer-", i)), k)
			}
			layers[i] = l
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return assemble(layers)
}

func (c testCase) layer(ctx context.Context, archive string) (layer, error) {
	l := layer{file: archive}
	l.desc.MediaType = ocispec.MediaTypeImageLayer
	var err error
	if l.diffID, l.size, err = sum(archive); err != nil {
		return l, err
	}
	switch c.format {
	case gzipped:
		l.file, l.desc.MediaType = archive+".gz", ocispec.MediaTypeImageLayerGzip
	case zstandard:
		l.file, l.desc.MediaType = archive+".zst", ocispec.MediaTypeImageLayerZstd
	case uncompressed:
		l.desc.Digest, l.desc.Size = l.diffID, l.size
		return l, nil
	}
	if err := compress(ctx, archive, l.file, c.format); err != nil {
		return l, err
	}
	l.desc.Digest, l.desc.Size, err = sum(l.file)
	return l, err
}

// encrypt writes the layer's ciphertext to a file.
func (l *layer) encrypt(file string, k keys) error {
	in, err := os.Open(l.file)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	encrypter, err := crypt.NewEncrypter(in)
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	hash := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(out, hash), struct{ io.Reader }{encrypter}, make([]byte, 1<<20))
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	public, private, err := encrypter.Options(l.desc.Digest)
	if err != nil {
		return err
	}
	defer private.Key.Destroy()
	if l.desc.Annotations, err = wrapped(public, private, k); err != nil {
		return err
	}
	l.file = file
	l.desc.MediaType += crypt.MediaSuffix
	l.desc.Digest, l.desc.Size = digest.NewDigest(digest.SHA256, hash), n
	return nil
}

func wrapped(public crypt.Public, private crypt.Private, k keys) (map[string]string, error) {
	doc, err := private.Marshal()
	if err != nil {
		return nil, err
	}
	defer doc.Destroy()
	broker, err := crypt.BrokerRecipient(kekName, k.kek)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&k.rsa.PublicKey)
	if err != nil {
		return nil, err
	}
	peer, err := crypt.NewRecipient(crypt.SchemeJWE, der)
	if err != nil {
		return nil, err
	}
	packets, err := crypt.WrapFor(doc, broker, peer)
	if err != nil {
		return nil, err
	}
	return crypt.Annotations(public, packets...)
}

func assemble(layers []layer) (*image, error) {
	img := &image{files: map[digest.Digest]string{}}
	config := ocispec.Image{}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.RootFS.Type = "layers"
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		m.Layers = append(m.Layers, l.desc)
		img.files[l.desc.Digest] = l.file
		img.compressed += l.desc.Size
		img.size += l.size
	}
	var err error
	if img.config, err = json.Marshal(config); err != nil {
		return nil, err
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(img.config), Size: int64(len(img.config))}
	if img.manifest, err = json.Marshal(m); err != nil {
		return nil, err
	}
	img.digest = digest.FromBytes(img.manifest)
	return img, nil
}

func sum(file string) (digest.Digest, int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }()
	d := digest.SHA256.Digester()
	n, err := io.CopyBuffer(d.Hash(), struct{ io.Reader }{f}, make([]byte, 1<<20))
	return d.Digest(), n, err
}
