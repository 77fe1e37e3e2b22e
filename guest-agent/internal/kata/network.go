package kata

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/agent"
	"github.com/vouchsafe-cc/vouchsafe/guest-agent/api/types"
)

// Network is the guest's own network (kata-agent 2.8); see package network.
type Network interface {
	UpdateInterface(i *types.Interface) (*types.Interface, error)
	UpdateRoutes(r []*types.Route) ([]*types.Route, error)
	AddNeighbors(n []*types.ARPNeighbor) error
	Interfaces() ([]*types.Interface, error)
	Routes() ([]*types.Route, error)
}

// noNetwork answers what concerns the network where the agent could not open it.
// The host learns that, and a ticket; the owner why.
func (s *Server) noNetwork(ctx context.Context, method string) error {
	cause := s.offline
	if cause == nil {
		cause = errors.New("this agent was given no network")
	}
	return s.refuse(ctx, method, fault.Newf(fault.Unavailable, "the guest's network cannot be opened: %w", cause))
}

// UpdateInterface sets an interface up, which comes before there is a sandbox.
func (s *Server) UpdateInterface(ctx context.Context, req *agent.UpdateInterfaceRequest) (*types.Interface, error) {
	if s.network == nil {
		return nil, s.noNetwork(ctx, "UpdateInterface")
	}
	return s.network.UpdateInterface(req.Interface)
}

// UpdateRoutes adds routes and returns all.
func (s *Server) UpdateRoutes(ctx context.Context, req *agent.UpdateRoutesRequest) (*agent.Routes, error) {
	if s.network == nil {
		return nil, s.noNetwork(ctx, "UpdateRoutes")
	}
	routes, err := s.network.UpdateRoutes(req.GetRoutes().GetRoutes())
	return &agent.Routes{Routes: routes}, err
}

// AddARPNeighbors adds neighbours that are never asked for.
func (s *Server) AddARPNeighbors(ctx context.Context, req *agent.AddARPNeighborsRequest) (*emptypb.Empty, error) {
	if s.network == nil {
		return nil, s.noNetwork(ctx, "AddARPNeighbors")
	}
	return empty, s.network.AddNeighbors(req.GetNeighbors().GetARPNeighbors())
}

// ListInterfaces lists the guest's interfaces.
func (s *Server) ListInterfaces(ctx context.Context, _ *agent.ListInterfacesRequest) (*agent.Interfaces, error) {
	if s.network == nil {
		return nil, s.noNetwork(ctx, "ListInterfaces")
	}
	all, err := s.network.Interfaces()
	return &agent.Interfaces{Interfaces: all}, err
}

// ListRoutes lists the guest's routes.
func (s *Server) ListRoutes(ctx context.Context, _ *agent.ListRoutesRequest) (*agent.Routes, error) {
	if s.network == nil {
		return nil, s.noNetwork(ctx, "ListRoutes")
	}
	all, err := s.network.Routes()
	return &agent.Routes{Routes: all}, err
}
