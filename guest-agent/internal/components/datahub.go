package components

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/datahub"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/hub"
	"github.com/vouchsafe-cc/vouchsafe/image/crypt"
	"github.com/vouchsafe-cc/vouchsafe/image/keyprovider"
	"github.com/vouchsafe-cc/vouchsafe/secret"
)

// DataHub is what the confidential-data-hub's services need of the hub.
type DataHub interface {
	Resource(ctx context.Context, uri string) (secret.Bytes, error)
	Unseal(ctx context.Context, text string) (secret.Bytes, error)
	PullImage(ctx context.Context, ref, bundle string) (hub.PulledImage, error)
	UnwrapKey(ctx context.Context, packet []byte) (secret.Bytes, error)
	SecureMount(ctx context.Context, volumeType string, options map[string]string, flags []string, mountPoint string) error
}

// dataHub implements the services of guest-protocol 2.3.
type dataHub struct {
	hub  DataHub
	keys *keyprovider.Provider
}

func newDataHub(h DataHub) *dataHub {
	return &dataHub{hub: h, keys: &keyprovider.Provider{Unwrapper: unwrapper{h}}}
}

// unwrapper opens the packets of key providers; others never come this way.
type unwrapper struct{ hub DataHub }

func (u unwrapper) Unwrap(ctx context.Context, w crypt.WrappedKey) (secret.Bytes, error) {
	return u.hub.UnwrapKey(ctx, w.Packet)
}

func (d *dataHub) UnsealSecret(ctx context.Context, req *datahub.UnsealSecretInput) (*datahub.UnsealSecretOutput, error) {
	value, err := d.hub.Unseal(ctx, string(req.Secret))
	if err != nil {
		return nil, err
	}
	return &datahub.UnsealSecretOutput{Plaintext: take(value)}, nil
}

func (d *dataHub) GetResource(ctx context.Context, req *datahub.GetResourceRequest) (*datahub.GetResourceResponse, error) {
	value, err := d.hub.Resource(ctx, req.ResourcePath)
	if err != nil {
		return nil, err
	}
	return &datahub.GetResourceResponse{Resource: take(value)}, nil
}

// SecureMount mounts an encrypted volume (guest-protocol 13), until the agent
// ends.
func (d *dataHub) SecureMount(ctx context.Context, req *datahub.SecureMountRequest) (*datahub.SecureMountResponse, error) {
	if err := d.hub.SecureMount(ctx, req.VolumeType, req.Options, req.Flags, req.MountPoint); err != nil {
		return nil, err
	}
	return &datahub.SecureMountResponse{}, nil
}

// PullImage mounts an image at bundle/rootfs, until the agent ends.
func (d *dataHub) PullImage(ctx context.Context, req *datahub.ImagePullRequest) (*datahub.ImagePullResponse, error) {
	img, err := d.hub.PullImage(ctx, req.ImageUrl, req.BundlePath)
	if err != nil {
		return nil, err
	}
	return &datahub.ImagePullResponse{ManifestDigest: img.Digest}, nil
}

// WrapKey is for those who encrypt images, not for guests.
func (*dataHub) WrapKey(context.Context, *datahub.KeyProviderKeyWrapProtocolInput) (*datahub.KeyProviderKeyWrapProtocolOutput, error) {
	return nil, notServed("WrapKey")
}

// UnWrapKey opens the key packet of a layer for ocicrypt (guest-protocol 11.2).
// A key that the broker binds to an image is not had this way: nobody here can
// say for which image it is.
func (d *dataHub) UnWrapKey(ctx context.Context, req *datahub.KeyProviderKeyWrapProtocolInput) (*datahub.KeyProviderKeyWrapProtocolOutput, error) {
	answer, err := d.keys.Answer(ctx, keyprovider.Unwrap, req.KeyProviderKeyWrapProtocolInput)
	if errors.Is(err, keyprovider.ErrQuestion) {
		return nil, status.Error(codes.Internal, "[ERROR] UnwrapKey Parse request failed")
	}
	if err != nil {
		return nil, err
	}
	return &datahub.KeyProviderKeyWrapProtocolOutput{KeyProviderKeyWrapProtocolOutput: answer}, nil
}
