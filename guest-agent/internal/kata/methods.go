package kata

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/vouchsafe-cc/vouchsafe/guest-agent/internal/rpc"
)

// readData is the field of ReadStreamResponse, which has no other.
const readData protowire.Number = 1

// RPC returns a server with both services.
func (s *Server) RPC() *rpc.Server {
	return rpc.NewServer(rpc.Config{Intercept: s.intercept, Logger: s.log},
		rpc.Service{Name: "grpc.AgentService", Methods: s.methods()},
		rpc.Service{Name: "grpc.Health", Methods: health{s}.methods()},
	)
}

func (h health) methods() []rpc.Method {
	return []rpc.Method{
		rpc.Unary("Check", h.Check).Quick(),
		rpc.Unary("Version", h.Version).Quick(),
	}
}

// methods are those of grpc.AgentService. What a container writes goes from its
// pipe to the runtime without a message in between.
func (s *Server) methods() []rpc.Method {
	return []rpc.Method{
		rpc.Unary("CreateContainer", s.CreateContainer),
		rpc.Unary("StartContainer", s.StartContainer),
		rpc.Unary("RemoveContainer", s.RemoveContainer),
		rpc.Unary("ExecProcess", s.ExecProcess),
		rpc.Unary("SignalProcess", s.SignalProcess),
		rpc.Unary("WaitProcess", s.WaitProcess),
		rpc.Unary("UpdateContainer", s.UpdateContainer),
		rpc.Unary("UpdateEphemeralMounts", s.UpdateEphemeralMounts),
		rpc.Unary("StatsContainer", s.StatsContainer),
		rpc.Unary("PauseContainer", s.PauseContainer),
		rpc.Unary("ResumeContainer", s.ResumeContainer),
		rpc.Unary("RemoveStaleVirtiofsShareMounts", s.RemoveStaleVirtiofsShareMounts),
		rpc.Unary("GetDiagnosticData", s.GetDiagnosticData),
		rpc.Unary("WriteStdin", s.WriteStdin),
		rpc.Bytes("ReadStdout", readData, s.ReadStdout),
		rpc.Bytes("ReadStderr", readData, s.ReadStderr),
		rpc.Unary("CloseStdin", s.CloseStdin),
		rpc.Unary("TtyWinResize", s.TtyWinResize),
		rpc.Unary("UpdateInterface", s.UpdateInterface),
		rpc.Unary("UpdateRoutes", s.UpdateRoutes),
		rpc.Unary("ListInterfaces", s.ListInterfaces),
		rpc.Unary("ListRoutes", s.ListRoutes),
		rpc.Unary("AddARPNeighbors", s.AddARPNeighbors),
		rpc.Unary("GetIPTables", s.GetIPTables),
		rpc.Unary("SetIPTables", s.SetIPTables),
		rpc.Unary("GetMetrics", s.GetMetrics),
		rpc.Unary("MemAgentMemcgSet", s.MemAgentMemcgSet),
		rpc.Unary("MemAgentCompactSet", s.MemAgentCompactSet),
		rpc.Unary("CreateSandbox", s.CreateSandbox),
		rpc.Unary("DestroySandbox", s.DestroySandbox),
		rpc.Unary("OnlineCPUMem", s.OnlineCPUMem),
		rpc.Unary("ReseedRandomDev", s.ReseedRandomDev),
		rpc.Unary("GetGuestDetails", s.GetGuestDetails),
		rpc.Unary("MemHotplugByProbe", s.MemHotplugByProbe),
		rpc.Unary("SetGuestDateTime", s.SetGuestDateTime),
		rpc.Unary("CopyFile", s.CopyFile),
		rpc.Unary("GetOOMEvent", s.GetOOMEvent),
		rpc.Unary("AddSwap", s.AddSwap),
		rpc.Unary("AddSwapPath", s.AddSwapPath),
		rpc.Unary("GetVolumeStats", s.GetVolumeStats),
		rpc.Unary("ResizeVolume", s.ResizeVolume),
		rpc.Unary("SetPolicy", s.SetPolicy),
	}
}
