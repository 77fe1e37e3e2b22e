package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/lease"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/sandbox"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/securemount"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/settings"
)

// keyed mounts volumes under keys, and is slow to take them away.
type keyed struct {
	mu      sync.Mutex
	mounted []securemount.Mounted
	mount   error // what the next calls say
	unmount error
	answer  error // of the broker

	asked, revoked int
}

func (k *keyed) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func (k *keyed) SecureMount(context.Context, string, map[string]string, []string, string) error {
	return errors.New("this is for the other door")
}

func (k *keyed) MountKey(_ context.Context, node, key string, _ bool, _ securemount.Filesystem, _ uintptr, _ *os.File) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mount != nil {
		return "", k.mount
	}
	at := "/at" + node
	k.mounted = append(k.mounted, securemount.Mounted{MountPoint: at, Key: key, Lent: key != "file:///key"})
	return at, nil
}

// OpenKey is MountKey for a disk that is no filesystem.
func (k *keyed) OpenKey(ctx context.Context, _, key string, format bool, link string) error {
	_, err := k.MountKey(ctx, link, key, format, "", 0, nil)
	return err
}

func (k *keyed) Unmount(_ context.Context, at string) error {
	k.mu.Lock()
	err := k.unmount
	if err == nil {
		k.mounted = slices.DeleteFunc(k.mounted, func(m securemount.Mounted) bool { return m.MountPoint == at })
	}
	k.mu.Unlock()
	<-time.After(10 * time.Minute) // of the bubble's clock: some rounds
	return err
}

func (k *keyed) List() []securemount.Mounted {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.mounted)
}

func (k *keyed) AskAgain(_ context.Context, at string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	if !slices.ContainsFunc(k.mounted, func(m securemount.Mounted) bool { return m.MountPoint == at }) {
		return fault.Newf(fault.NotFound, "there is no volume at %s", at)
	}
	return k.answer
}

func (k *keyed) Revoke(context.Context, string) error {
	k.set(func() { k.revoked++ })
	return nil
}

// leased is a pod's volumes with a keeper that asks every minute.
type leased struct {
	*keyed
	*podVolumes
	forgotten int
}

func newLeased(t *testing.T) *leased {
	t.Helper()
	l := &leased{keyed: &keyed{}}
	keeper := lease.New(lease.Config{
		Interval: time.Minute, OnEnd: lease.Stop, Logger: slog.New(slog.DiscardHandler),
		Renew: func(context.Context) error { return nil }, Forget: func() { l.set(func() { l.forgotten++ }) },
		Stop: func(context.Context, string) error { return errors.New("a volume has no container") },
	})
	l.podVolumes = newPodVolumes(&settings.Settings{}, lentVolumes{l.keyed, keeper}, nil)
	l.podVolumes.keyed = l.keyed
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { keeper.Run(ctx); close(done) }()
	t.Cleanup(func() { end(); <-done })
	return l
}

func (l *leased) mountNode(t *testing.T, node, key string) string {
	t.Helper()
	at, err := l.podVolumes.MountKey(t.Context(), node, sandbox.Key{Location: key}, sandbox.Mount{Filesystem: "ext4"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// taken tells how often volumes were cut off, and tokens forgotten.
func (l *leased) taken() (revoked, forgotten int) {
	l.set(func() { revoked, forgotten = l.revoked, l.forgotten })
	return revoked, forgotten
}

// rounds counts how often the broker is asked within ten minutes.
func (l *leased) rounds() (n int) {
	l.set(func() { l.keyed.asked = 0 })
	<-time.After(10 * time.Minute)
	l.set(func() { n = l.keyed.asked })
	return n
}

// The key of a container's volume is asked for again as long as the volume stands,
// and when the broker takes it back the volume is cut off.
func TestPodVolumesAreLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeased(t)
		l.mountNode(t, "/own", "file:///key")
		if n := l.rounds(); n != 0 {
			t.Errorf("a key of the guest's own was asked for %d times", n)
		}
		l.mountNode(t, "/lent", "kbs:///a/key/1")
		if n := l.rounds(); n < 9 || n > 12 {
			t.Errorf("asked for %d times in ten minutes", n)
		}
		l.set(func() { l.answer = fault.Newf(fault.Unavailable, "not there") })
		l.rounds()
		if revoked, forgotten := l.taken(); revoked != 0 || forgotten != 0 {
			t.Error("a broker that says nothing has taken a volume")
		}
		l.set(func() { l.answer = fault.Newf(fault.PolicyDenied, "no more") })
		l.rounds()
		if revoked, forgotten := l.taken(); revoked != 1 || forgotten != 1 {
			t.Errorf("revoked %d times, forgotten %d times", revoked, forgotten)
		}
	})
}

// A volume that goes takes its lease along, before anybody asks for a volume that
// is no more; one that cannot go keeps it.
func TestPodVolumesGiveLeasesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeased(t)
		at := l.mountNode(t, "/lent", "kbs:///a/key/1")
		busy := errors.New("busy")
		l.set(func() { l.unmount = busy })
		if err := l.podVolumes.Unmount(t.Context(), at); !errors.Is(err, busy) {
			t.Error(err)
		}
		if n := l.rounds(); n < 9 || n > 12 {
			t.Errorf("a volume that stands was asked for %d times", n)
		}
		l.set(func() { l.unmount = nil })
		if err := l.podVolumes.Unmount(t.Context(), at); err != nil {
			t.Error(err)
		}
		if n := l.rounds(); n != 0 {
			t.Errorf("a volume that is gone was asked for %d times", n)
		}
		if revoked, forgotten := l.taken(); revoked != 0 || forgotten != 0 || len(l.held) != 0 {
			t.Errorf("revoked %d times, forgotten %d times, %d are held", revoked, forgotten, len(l.held))
		}
		if err := l.podVolumes.Unmount(t.Context(), at); err != nil { // of an emptyDir, which has no lease
			t.Error(err)
		}
		refused := fault.Newf(fault.VolumeRefused, "no")
		l.set(func() { l.mount = refused })
		if _, err := l.podVolumes.MountKey(t.Context(), "/other", sandbox.Key{Location: "kbs:///a/key/2"}, sandbox.Mount{}, nil); !errors.Is(err, refused) {
			t.Error(err)
		}
		if n := l.rounds(); n != 0 {
			t.Errorf("a volume that was refused was asked for %d times", n)
		}
	})
}
