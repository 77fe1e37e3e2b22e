// Command imgcrypt encrypts and decrypts images in an OCI layout with imgcrypt,
// containerd's library, whose ctr-enc is not to be had as a module:
//
//	imgcrypt encrypt DIR TAG NEWTAG RECIPIENT...
//	imgcrypt decrypt DIR TAG NEWTAG KEY...
//
// Recipients and keys are written as ctr-enc takes them. A layout's blobs lie
// where containerd's content store looks for them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/imgcrypt/v2/images/encryption"
	"github.com/containers/ocicrypt/helpers"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "imgcrypt:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 5 {
		return errors.New("imgcrypt encrypt|decrypt DIR TAG NEWTAG RECIPIENT-OR-KEY...")
	}
	ctx := namespaces.WithNamespace(context.Background(), "default")
	op, dir, tag, to := args[0], args[1], args[2], args[3]
	store, err := local.NewLabeledStore(dir, &labels{all: map[digest.Digest]map[string]string{}})
	if err != nil {
		return err
	}
	index, from, err := find(dir, tag)
	if err != nil {
		return err
	}
	now, err := convert(ctx, store, op, from, args[4:])
	if err != nil {
		return err
	}
	now.Annotations = map[string]string{ocispec.AnnotationRefName: to}
	now.Platform = from.Platform
	index.Manifests = append(index.Manifests, now)
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "index.json"), raw, 0o644)
}

func convert(ctx context.Context, store content.Store, op string, from ocispec.Descriptor, who []string) (ocispec.Descriptor, error) {
	recipients, keys, work := who, []string(nil), encryption.EncryptImage
	if op == "decrypt" {
		recipients, keys, work = nil, who, encryption.DecryptImage
	}
	cc, err := helpers.CreateCryptoConfig(recipients, keys)
	if err != nil {
		return from, err
	}
	now, changed, err := work(ctx, store, from, &cc, func(ocispec.Descriptor) bool { return true })
	if err == nil && !changed {
		err = errors.New("nothing was changed")
	}
	return now, err
}

func find(dir, tag string) (index ocispec.Index, d ocispec.Descriptor, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return index, d, err
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return index, d, err
	}
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			return index, d, nil
		}
	}
	return index, d, fmt.Errorf("no image is called %s", tag)
}

// labels are those of the store, in memory.
type labels struct {
	mu  sync.Mutex
	all map[digest.Digest]map[string]string
}

func (l *labels) Get(d digest.Digest) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[d], nil
}

func (l *labels) Set(d digest.Digest, to map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[d] = to
	return nil
}

func (l *labels) Update(d digest.Digest, more map[string]string) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := map[string]string{}
	for k, v := range l.all[d] {
		now[k] = v
	}
	for k, v := range more {
		if v == "" {
			delete(now, k)
			continue
		}
		now[k] = v
	}
	l.all[d] = now
	return now, nil
}
