package kata

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/network"
)

// wires is a network with one interface.
type wires struct {
	interfaces []*types.Interface
	routes     []*types.Route
	neighbors  int
	err        error
}

func (w *wires) UpdateInterface(i *types.Interface) (*types.Interface, error) {
	w.interfaces = append(w.interfaces, i)
	return i, w.err
}

func (w *wires) UpdateRoutes(r []*types.Route) ([]*types.Route, error) {
	w.routes = append(w.routes, r...)
	return w.routes, w.err
}
func (w *wires) AddNeighbors(n []*types.ARPNeighbor) error { w.neighbors += len(n); return w.err }
func (w *wires) Interfaces() ([]*types.Interface, error)   { return w.interfaces, w.err }
func (w *wires) Routes() ([]*types.Route, error)           { return w.routes, w.err }

// A runtime sets the network up before there is a sandbox.
func TestTheNetworkComesFirst(t *testing.T) {
	w := new(wires)
	p := newPod(t, func(c *Config) { c.Network = w })
	ctx := t.Context()
	eth0 := &types.Interface{Name: "eth0", HwAddr: "02:00:00:00:00:01"}
	if i, err := p.client.UpdateInterface(ctx, &agent.UpdateInterfaceRequest{Interface: eth0}); err != nil || i.Name != "eth0" {
		t.Fatalf("%v, %v", i, err)
	}
	routes := &agent.Routes{Routes: []*types.Route{{Device: "eth0", Gateway: "10.0.0.1"}}}
	if r, err := p.client.UpdateRoutes(ctx, &agent.UpdateRoutesRequest{Routes: routes}); err != nil || len(r.Routes) != 1 {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := p.client.AddARPNeighbors(ctx, &agent.AddARPNeighborsRequest{Neighbors: &agent.ARPNeighbors{ARPNeighbors: []*types.ARPNeighbor{{}}}}); err != nil || w.neighbors != 1 {
		t.Errorf("%d neighbours, %v", w.neighbors, err)
	}
	if i, err := p.client.ListInterfaces(ctx, &agent.ListInterfacesRequest{}); err != nil || len(i.Interfaces) != 1 {
		t.Errorf("%v, %v", i, err)
	}
	if r, err := p.client.ListRoutes(ctx, &agent.ListRoutesRequest{}); err != nil || len(r.Routes) != 1 {
		t.Errorf("%v, %v", r, err)
	}
	w.err = network.ErrLinkNotFound
	_, err := p.client.UpdateInterface(ctx, &agent.UpdateInterfaceRequest{Interface: eth0})
	wantCode(t, err, codes.NotFound)
	w.err = new(network.InvalidError)
	_, err = p.client.UpdateRoutes(ctx, &agent.UpdateRoutesRequest{Routes: routes})
	wantCode(t, err, codes.InvalidArgument)
}

// Where the network could not be opened the host gets a code and a ticket, and
// the owner the cause.
func TestNoNetwork(t *testing.T) {
	var told []string
	p := newPod(t, func(c *Config) {
		c.NetworkError = errors.New("the true cause")
		c.Refuse = func(_ context.Context, request string, err error) error {
			f, _ := errors.AsType[*fault.Fault](err)
			told = append(told, request+": "+f.Cause().Error())
			return f.With("7QK2-M9TD")
		}
	})
	ctx := t.Context()
	calls := map[string]func() error{
		"UpdateInterface": func() error { _, err := p.client.UpdateInterface(ctx, &agent.UpdateInterfaceRequest{}); return err },
		"UpdateRoutes":    func() error { _, err := p.client.UpdateRoutes(ctx, &agent.UpdateRoutesRequest{}); return err },
		"AddARPNeighbors": func() error { _, err := p.client.AddARPNeighbors(ctx, &agent.AddARPNeighborsRequest{}); return err },
		"ListInterfaces":  func() error { _, err := p.client.ListInterfaces(ctx, &agent.ListInterfacesRequest{}); return err },
		"ListRoutes":      func() error { _, err := p.client.ListRoutes(ctx, &agent.ListRoutesRequest{}); return err },
	}
	for method, call := range calls {
		told = nil
		err := call()
		wantCode(t, err, codes.Unavailable)
		if text := status.Convert(err).Message(); text != "unavailable (ticket 7QK2-M9TD)" {
			t.Errorf("%s: the host sees %q", method, text)
		}
		if len(told) != 1 || !strings.HasPrefix(told[0], method+": ") || !strings.HasSuffix(told[0], "the true cause") {
			t.Errorf("%s: the owner is told %q", method, told)
		}
	}
}
