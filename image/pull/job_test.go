package pull

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestLargestFirst(t *testing.T) {
	var plans []layerPlan
	for _, size := range []int64{5, 9, 1, 9} {
		plans = append(plans, layerPlan{desc: ocispec.Descriptor{Size: size}})
	}
	if order := largestFirst(plans); !slices.Equal(order, []int{1, 3, 0, 2}) {
		t.Errorf("%v", order)
	}
}

// The digest of a blob is the diffID only where the blob is the archive.
func TestHashedAlready(t *testing.T) {
	const d digest.Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	same := layerPlan{desc: ocispec.Descriptor{Digest: d}, diffID: d}
	for name, change := range map[string]func(*layerPlan){
		"compressed":     func(lp *layerPlan) { lp.compression = gzipped },
		"encrypted":      func(lp *layerPlan) { lp.encrypted = true },
		"another diffID": func(lp *layerPlan) { lp.diffID = d[:70] + "6" },
	} {
		lp := same
		if change(&lp); lp.hashedAlready() {
			t.Errorf("%s: the archive would not be checked", name)
		}
	}
	if !same.hashedAlready() {
		t.Error("the same bytes would be hashed twice")
	}
}
