package kata

import (
	"context"

	"google.golang.org/protobuf/types/known/emptypb"

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

// UpdateInterface sets an interface up, which comes before there is a sandbox.
func (s *Server) UpdateInterface(_ context.Context, req *agent.UpdateInterfaceRequest) (*types.Interface, error) {
	if s.network == nil {
		return nil, errAbsent("UpdateInterface")
	}
	return s.network.UpdateInterface(req.Interface)
}

// UpdateRoutes adds routes and returns all.
func (s *Server) UpdateRoutes(_ context.Context, req *agent.UpdateRoutesRequest) (*agent.Routes, error) {
	if s.network == nil {
		return nil, errAbsent("UpdateRoutes")
	}
	routes, err := s.network.UpdateRoutes(req.GetRoutes().GetRoutes())
	return &agent.Routes{Routes: routes}, err
}

// AddARPNeighbors adds neighbours that are never asked for.
func (s *Server) AddARPNeighbors(_ context.Context, req *agent.AddARPNeighborsRequest) (*emptypb.Empty, error) {
	if s.network == nil {
		return nil, errAbsent("AddARPNeighbors")
	}
	return empty, s.network.AddNeighbors(req.GetNeighbors().GetARPNeighbors())
}

// ListInterfaces lists the guest's interfaces.
func (s *Server) ListInterfaces(context.Context, *agent.ListInterfacesRequest) (*agent.Interfaces, error) {
	if s.network == nil {
		return nil, errAbsent("ListInterfaces")
	}
	all, err := s.network.Interfaces()
	return &agent.Interfaces{Interfaces: all}, err
}

// ListRoutes lists the guest's routes.
func (s *Server) ListRoutes(context.Context, *agent.ListRoutesRequest) (*agent.Routes, error) {
	if s.network == nil {
		return nil, errAbsent("ListRoutes")
	}
	all, err := s.network.Routes()
	return &agent.Routes{Routes: all}, err
}
