// Package prove tells whether an image is what its documents say, by computing
// everything again from its bytes. Nothing of the machine is asked, and nothing
// is believed but one key.
package prove

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/image/erofs"
	"github.com/vouchsafe-cc/vouchsafe/measure/predict"
	"github.com/vouchsafe-cc/vouchsafe/measure/refvalue"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/build"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/disk"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/expected"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/initramfs"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/manifest"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/publish"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/signing"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/tree"
)

// A Check is one thing that was looked at. Err says what is wrong.
type Check struct {
	Name, Says string
	Err        error
}

// An Image is what a directory has, by the names of its files.
type Image struct {
	Files    map[string][]byte
	Manifest *manifest.Manifest
}

// Open reads the manifest of an image.
func Open(files map[string][]byte) (*Image, error) {
	raw, ok := files[publish.FileManifest]
	if !ok {
		return nil, fmt.Errorf("there is no %s: is this an image that 'rootfs build' made?", publish.FileManifest)
	}
	m, err := manifest.Parse(raw)
	if err != nil {
		return nil, err
	}
	return &Image{files, m}, nil
}

// Run checks everything, and reports all that is wrong. A nil key leaves the
// signatures unchecked, which is for whoever built the image: the caller says so.
func (i *Image) Run(ctx context.Context, key crypto.PublicKey) []Check {
	checks := []Check{i.sums(), i.provenance(key)}
	trees, more := i.trees(ctx)
	checks = append(checks, more...)
	checks = append(checks, i.contents(trees)...)
	predictions, more := i.predictions()
	checks = append(checks, more...)
	return append(checks, i.reference(key, predictions))
}

func (i *Image) sums() Check {
	c := Check{Name: "files", Says: fmt.Sprintf("%d files are as %s lists them", len(i.Files)-1, publish.FileSums)}
	if !bytes.Equal(i.Files[publish.FileSums], publish.Sums(i.Files)) {
		c.Err = fmt.Errorf("the files are not those that %s lists (sha256sum -c %s names them)", publish.FileSums, publish.FileSums)
	}
	return c
}

// provenance checks the signature over the digests of all files.
func (i *Image) provenance(key crypto.PublicKey) Check {
	c := Check{Name: "provenance", Says: "signed by the key, over every file"}
	statement := i.Files[publish.FileStatement]
	if key != nil {
		raw, ok := i.Files[publish.FileProvenance]
		if !ok {
			c.Err = fmt.Errorf("there is no %s: the image is not signed", publish.FileProvenance)
			return c
		}
		if statement, c.Err = signing.Open(raw, key, build.PayloadType); c.Err != nil {
			return c
		}
	} else if raw, ok := i.Files[publish.FileProvenance]; ok {
		c.Says = "NOT CHECKED whose signature it is; it covers every file"
		var e signing.Envelope
		if c.Err = json.Unmarshal(raw, &e); c.Err != nil {
			return c
		}
		statement = e.Payload
	} else {
		c.Says = "NOT SIGNED; it covers every file"
	}
	var s build.Statement
	if c.Err = json.Unmarshal(statement, &s); c.Err != nil {
		return c
	}
	covered := maps.Clone(i.Files)
	for _, name := range []string{publish.FileProvenance, publish.FileStatement, publish.FileSums} {
		delete(covered, name)
	}
	want, got := build.Subjects(covered), s.Subject
	if !slices.EqualFunc(want, got, func(a, b build.Resource) bool { return a.Name == b.Name && a.Digest["sha256"] == b.Digest["sha256"] }) {
		c.Err = errors.New("it speaks of other files than those that are here")
	}
	return c
}

// trees unpacks what the image has.
func (i *Image) trees(ctx context.Context) (map[string]*tree.Tree, []Check) {
	out := map[string]*tree.Tree{}
	var checks []Check
	initrd := i.Files[build.FileInitrd]
	if build.Form(i.Manifest.Form).FirmwareStarts() {
		var c Check
		initrd, c = i.unified()
		checks = append(checks, c, i.secureBoot())
	}
	c := Check{Name: "initramfs", Says: "one archive, with nothing between or behind its files"}
	out[build.FileInitrd], c.Err = initramfs.Read(initrd)
	checks = append(checks, c)
	switch build.Form(i.Manifest.Form) {
	case build.Verity:
		c := Check{Name: "root", Says: "every block and the hash tree lead to the root hash, which the command line has"}
		out[build.FileDisk], c.Err = i.root(ctx)
		checks = append(checks, c)
	case build.Disk, build.VerityDisk:
		c := Check{Name: "disk", Says: "made of " + build.FileUKI + " to the byte"}
		var root *tree.Tree
		root, c.Err = i.bootable(ctx)
		checks = append(checks, c)
		if build.Form(i.Manifest.Form) == build.VerityDisk {
			out[build.FileBootable] = root
		}
	case build.Initrd, build.UKI: // all is in the initramfs
	default:
		checks = append(checks, Check{Name: "form", Err: fmt.Errorf("%.40q is no form of an image", i.Manifest.Form)})
	}
	return out, checks
}

// root checks the disk against its parameters, and those against the command
// line, and returns what is in it.
func (i *Image) root(ctx context.Context) (*tree.Tree, error) {
	r, err := i.parameters(disk.Root.CommandLine)
	if err != nil {
		return nil, err
	}
	data, err := disk.Check(i.Files[build.FileDisk], r)
	if err != nil {
		return nil, err
	}
	return readRoot(ctx, data)
}

// bootable checks a disk that firmware starts; it returns what is in the root,
// nil where everything is in the initramfs.
func (i *Image) bootable(ctx context.Context) (*tree.Tree, error) {
	var want *disk.Root
	if build.Form(i.Manifest.Form) == build.VerityDisk {
		r, err := i.parameters(disk.Root.BootableCommandLine)
		if err != nil {
			return nil, err
		}
		want = &r
	}
	data, err := disk.CheckBootable(i.Files[build.FileBootable], i.Files[build.FileUKI], want)
	if err != nil || want == nil {
		return nil, err
	}
	return readRoot(ctx, data)
}

// parameters reads those of the root, of which the command line must tell.
func (i *Image) parameters(told func(disk.Root) string) (disk.Root, error) {
	r, err := disk.ParseParameters(string(i.Files[build.FileParameters]))
	if err != nil {
		return r, err
	}
	if line := strings.TrimSuffix(string(i.Files[build.FileCmdline]), "\n"); !strings.HasSuffix(" "+line, " "+told(r)) {
		return r, fmt.Errorf("%s and %s tell of two roots", build.FileParameters, build.FileCmdline)
	}
	return r, nil
}

func readRoot(ctx context.Context, data []byte) (*tree.Tree, error) {
	entries, err := erofs.ReadEntries(ctx, data)
	if err != nil {
		return nil, err
	}
	t := tree.Empty()
	for _, e := range entries {
		if err := t.Put(e.Path, tree.File{Mode: e.Mode, Content: e.Content, Target: e.Target}); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// contents compares the trees with the manifest, and looks for what no guest
// should have.
func (i *Image) contents(trees map[string]*tree.Tree) []Check {
	var out []Check
	for _, where := range slices.Sorted(maps.Keys(trees)) {
		t := trees[where]
		if t == nil {
			continue // it could not be read, which was told
		}
		files := i.Manifest.Contents[where]
		out = append(out,
			Check{Name: "contents", Says: fmt.Sprintf("%d files of %s are as the manifest lists them", len(files), where), Err: manifest.Compare(files, t)},
			Check{Name: "unwanted", Says: "no shell, no package manager, no set-user-ID file in " + where, Err: t.Check()})
	}
	for where := range i.Manifest.Contents {
		if _, ok := trees[where]; !ok {
			out = append(out, Check{Name: "contents", Err: fmt.Errorf("the manifest lists files of %s, which an image of form %s does not have", where, i.Manifest.Form)})
		}
	}
	return out
}

// predictions computes again what guests measure to.
func (i *Image) predictions() ([]*predict.Document, []Check) {
	c := Check{Name: "predictions", Says: "what guests measure to, computed again, is what is written"}
	all, err := publish.Predictions(i.Files, i.Manifest)
	if c.Err = err; err != nil {
		return nil, []Check{c}
	}
	for n, d := range all {
		name := publish.PredictionFile(i.Manifest.Firmware[n].Name)
		raw, err := publish.MarshalPrediction(d)
		switch {
		case err != nil:
			c.Err = err
		case !bytes.Equal(raw, i.Files[name]):
			c.Err = errors.Join(c.Err, fmt.Errorf("%s: these files measure to something else ('measure diff' of the two tells what)", name))
		}
	}
	return all, []Check{c}
}

// reference checks the document of reference values against the predictions.
func (i *Image) reference(key crypto.PublicKey, predictions []*predict.Document) Check {
	c := Check{Name: "reference values", Says: "signed by the key, and those that were computed again"}
	if len(i.Manifest.Firmware) == 0 {
		c.Says = "none: the recipe names no firmware to predict for"
		return c
	}
	raw, signed := i.Files[publish.FileReference]
	if !signed && key == nil {
		c.Says = "NOT SIGNED, and not compared"
		return c
	}
	e, err := refvalue.Open(raw)
	if err == nil && key != nil {
		err = e.Verify(key)
	} else {
		c.Says = "NOT CHECKED whose signature it is; they are those that were computed again"
	}
	if err != nil {
		c.Err = err
		return c
	}
	got, err := e.Document()
	if err != nil {
		c.Err = err
		return c
	}
	want, err := expected.Document(expected.Release{ID: got.ID}, predictions)
	if err == nil && !slices.EqualFunc(want.Values, got.Values, func(a, b refvalue.Value) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }) {
		err = errors.New("the document has other values than those that these files lead to")
	}
	c.Err = err
	return c
}
