package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/vouchsafe-cc/vouchsafe/strictjson"
)

// maxMembers is how many members an object of a config may have that this package
// compares with each other.
const maxMembers = 256

// CheckConfigType refuses the config of what is no container image. Charts, modules and
// signatures lie in registries too, in manifests of the same form, and whoever signed
// one of those did not sign something to run.
func CheckConfigType(config ocispec.Descriptor) error {
	switch config.MediaType {
	case ocispec.MediaTypeImageConfig, MediaTypeDockerConfig:
		return nil
	}
	return malformed("it is no container image but an artifact, whose config is of type %.100q", config.MediaType)
}

// ReadConfig reads the config of an image into v, which json can decode. A config that
// two readers could understand differently, because members that say what runs stand
// there twice, is refused.
func ReadConfig(ctx context.Context, src Source, config ocispec.Descriptor, v any) error {
	if err := CheckConfigType(config); err != nil {
		return err
	}
	raw, err := ReadBlob(ctx, src, config, MaxManifest)
	if err != nil {
		return err
	}
	if err := checkConfig(raw); err != nil {
		return malformed("image config: %w", err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return malformed("image config: %w", err)
	}
	return nil
}

// checkConfig compares names without regard to case, as encoding/json does, but for
// those of labels and other free text.
func checkConfig(raw []byte) error {
	doc, err := strictjson.Parse(raw)
	if err != nil {
		return err
	}
	if err := unambiguous(doc); err != nil {
		return err
	}
	for _, name := range []string{"config", "rootfs"} {
		var inner json.RawMessage
		if ok, err := doc.Take(name, &inner); err != nil {
			return err
		} else if !ok || string(inner) == "null" {
			continue
		}
		o, err := strictjson.Parse(inner)
		if err == nil {
			err = unambiguous(o)
		}
		if err != nil {
			return fmt.Errorf("member %q: %w", name, err)
		}
	}
	return nil
}

func unambiguous(o *strictjson.Object) error {
	names := o.Names()
	if len(names) > maxMembers {
		return errors.New("too many members")
	}
	for i, a := range names {
		for _, b := range names[i+1:] {
			if strings.EqualFold(a, b) {
				return fmt.Errorf("members %.40q and %.40q are the same to some", a, b)
			}
		}
	}
	return nil
}
