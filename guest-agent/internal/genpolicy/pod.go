package genpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/util"
)

// maxDocument bounds a file with pods, in bytes.
const maxDocument = 4 << 20

// any value, of a field that has no part in what a container runs: who schedules
// it, what restarts it, how the network is configured.
type ignored = json.RawMessage

// object is a Kubernetes object, as far as it can hold a pod.
type object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       ignored  `json:"spec"`
}

type metadata struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// podSpec has every field that is understood. A field that is not named here is
// refused: it may be one that matters.
type podSpec struct {
	Containers            []container `json:"containers"`
	InitContainers        []container `json:"initContainers"`
	Volumes               []volume    `json:"volumes"`
	SecurityContext       podSecurity `json:"securityContext"`
	Hostname              string      `json:"hostname"`
	ShareProcessNamespace bool        `json:"shareProcessNamespace"`
	AutomountToken        *bool       `json:"automountServiceAccountToken"`
	EnableServiceLinks    *bool       `json:"enableServiceLinks"`
	HostNetwork           bool        `json:"hostNetwork"`
	HostPID               bool        `json:"hostPID"`
	HostIPC               bool        `json:"hostIPC"`
	ActiveDeadline        ignored     `json:"activeDeadlineSeconds"`
	Affinity              ignored     `json:"affinity"`
	DNSConfig             ignored     `json:"dnsConfig"`
	DNSPolicy             ignored     `json:"dnsPolicy"`
	HostAliases           ignored     `json:"hostAliases"`
	ImagePullSecrets      ignored     `json:"imagePullSecrets"`
	NodeName              ignored     `json:"nodeName"`
	NodeSelector          ignored     `json:"nodeSelector"`
	Overhead              ignored     `json:"overhead"`
	PreemptionPolicy      ignored     `json:"preemptionPolicy"`
	Priority              ignored     `json:"priority"`
	PriorityClassName     ignored     `json:"priorityClassName"`
	ReadinessGates        ignored     `json:"readinessGates"`
	Resources             ignored     `json:"resources"`
	RestartPolicy         ignored     `json:"restartPolicy"`
	RuntimeClassName      ignored     `json:"runtimeClassName"`
	SchedulerName         ignored     `json:"schedulerName"`
	ServiceAccount        ignored     `json:"serviceAccount"`
	ServiceAccountName    ignored     `json:"serviceAccountName"`
	Subdomain             ignored     `json:"subdomain"`
	TerminationGrace      ignored     `json:"terminationGracePeriodSeconds"`
	Tolerations           ignored     `json:"tolerations"`
	TopologySpread        ignored     `json:"topologySpreadConstraints"`
}

type podSecurity struct {
	RunAsUser           *int64   `json:"runAsUser"`
	RunAsGroup          *int64   `json:"runAsGroup"`
	FSGroup             *int64   `json:"fsGroup"`
	SupplementalGroups  []int64  `json:"supplementalGroups"`
	Sysctls             []sysctl `json:"sysctls"`
	RunAsNonRoot        ignored  `json:"runAsNonRoot"`
	FSGroupChangePolicy ignored  `json:"fsGroupChangePolicy"`
	SeccompProfile      ignored  `json:"seccompProfile"` // Kata drops profiles, see kata-agent 2.9
	AppArmorProfile     ignored  `json:"appArmorProfile"`
	SELinuxOptions      ignored  `json:"seLinuxOptions"`
}

type sysctl struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type container struct {
	Name                     string            `json:"name"`
	Image                    string            `json:"image"`
	Command                  []string          `json:"command"`
	Args                     []string          `json:"args"`
	WorkingDir               string            `json:"workingDir"`
	Env                      []variable        `json:"env"`
	VolumeMounts             []volumeMount     `json:"volumeMounts"`
	SecurityContext          containerSecurity `json:"securityContext"`
	TTY                      bool              `json:"tty"`
	Stdin                    bool              `json:"stdin"`
	LivenessProbe            *handler          `json:"livenessProbe"`
	ReadinessProbe           *handler          `json:"readinessProbe"`
	StartupProbe             *handler          `json:"startupProbe"`
	Lifecycle                lifecycle         `json:"lifecycle"`
	TerminationMessagePath   string            `json:"terminationMessagePath"`
	TerminationMessagePolicy ignored           `json:"terminationMessagePolicy"`
	ImagePullPolicy          ignored           `json:"imagePullPolicy"`
	Ports                    ignored           `json:"ports"`
	ResizePolicy             ignored           `json:"resizePolicy"`
	Resources                ignored           `json:"resources"`
	RestartPolicy            ignored           `json:"restartPolicy"`
	StdinOnce                ignored           `json:"stdinOnce"`
}

type variable struct {
	Name      string  `json:"name"`
	Value     string  `json:"value"`
	ValueFrom *source `json:"valueFrom"`
}

// source is where a variable's value comes from.
type source struct {
	FieldRef         *fieldRef `json:"fieldRef"`
	ResourceFieldRef ignored   `json:"resourceFieldRef"`
	ConfigMapKeyRef  ignored   `json:"configMapKeyRef"`
	SecretKeyRef     ignored   `json:"secretKeyRef"`
}

type fieldRef struct {
	APIVersion string `json:"apiVersion"`
	FieldPath  string `json:"fieldPath"`
}

type volumeMount struct {
	Name              string  `json:"name"`
	MountPath         string  `json:"mountPath"`
	ReadOnly          bool    `json:"readOnly"`
	SubPath           string  `json:"subPath"`
	RecursiveReadOnly ignored `json:"recursiveReadOnly"`
}

type containerSecurity struct {
	RunAsUser                *int64       `json:"runAsUser"`
	RunAsGroup               *int64       `json:"runAsGroup"`
	Privileged               bool         `json:"privileged"`
	ReadOnlyRootFilesystem   bool         `json:"readOnlyRootFilesystem"`
	AllowPrivilegeEscalation *bool        `json:"allowPrivilegeEscalation"`
	Capabilities             capabilities `json:"capabilities"`
	RunAsNonRoot             ignored      `json:"runAsNonRoot"`
	SeccompProfile           ignored      `json:"seccompProfile"`
	AppArmorProfile          ignored      `json:"appArmorProfile"`
	SELinuxOptions           ignored      `json:"seLinuxOptions"`
}

type capabilities struct {
	Add  []string `json:"add"`
	Drop []string `json:"drop"`
}

// handler is a probe or a hook of a container's life. Only commands reach the
// guest as such; others are connections from outside.
type handler struct {
	Exec *struct {
		Command []string `json:"command"`
	} `json:"exec"`
	HTTPGet          ignored `json:"httpGet"`
	TCPSocket        ignored `json:"tcpSocket"`
	GRPC             ignored `json:"grpc"`
	Sleep            ignored `json:"sleep"`
	InitialDelay     ignored `json:"initialDelaySeconds"`
	Timeout          ignored `json:"timeoutSeconds"`
	Period           ignored `json:"periodSeconds"`
	SuccessThreshold ignored `json:"successThreshold"`
	FailureThreshold ignored `json:"failureThreshold"`
	TerminationGrace ignored `json:"terminationGracePeriodSeconds"`
}

type lifecycle struct {
	PostStart  *handler `json:"postStart"`
	PreStop    *handler `json:"preStop"`
	StopSignal ignored  `json:"stopSignal"`
}

type volume struct {
	Name        string  `json:"name"`
	ConfigMap   ignored `json:"configMap"`
	Secret      ignored `json:"secret"`
	Projected   ignored `json:"projected"`
	DownwardAPI ignored `json:"downwardAPI"`
	EmptyDir    *struct {
		Medium    string  `json:"medium"`
		SizeLimit ignored `json:"sizeLimit"`
	} `json:"emptyDir"`
}

// pod is a pod, and where it comes from.
type pod struct {
	metadata
	podSpec
	generated bool // the pod's own name is not known yet
}

var documentBorder = regexp.MustCompile(`(?m)^---[ \t]*(?:#.*)?$`)

// parsePod finds the one pod in a file, which may hold other objects beside it.
func parsePod(text []byte) (*pod, error) {
	if len(text) > maxDocument {
		return nil, fmt.Errorf("%d bytes long, at most %d are read", len(text), maxDocument)
	}
	var found *pod
	for i, document := range documentBorder.Split(string(text), -1) {
		if strings.TrimSpace(document) == "" {
			continue
		}
		p, err := parseObject([]byte(document))
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		if p != nil && found != nil {
			return nil, errors.New("there is more than one pod; a policy is for one")
		}
		if p != nil {
			found = p
		}
	}
	if found == nil {
		return nil, errors.New("there is no pod")
	}
	return found, nil
}

func parseObject(text []byte) (*pod, error) {
	var raw any
	if err := util.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, nil // comments alone
	}
	clean, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(clean, &o); err != nil {
		return nil, err
	}
	spec, err := o.podSpec()
	if err != nil || spec == nil {
		return nil, err
	}
	p := &pod{metadata: o.Metadata, generated: o.Kind != "Pod"}
	dec := json.NewDecoder(bytes.NewReader(spec))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p.podSpec); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s %s: what it means for the policy is not known: %w", o.Kind, o.Metadata.Name, err)
	}
	return p, nil
}

// podSpec returns the pod's part of an object, nil for a kind that has none.
func (o object) podSpec() (json.RawMessage, error) {
	var template struct {
		Template struct {
			Spec json.RawMessage `json:"spec"`
		} `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template struct {
					Spec json.RawMessage `json:"spec"`
				} `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	}
	if o.Kind == "Pod" {
		return o.Spec, nil
	}
	switch o.Kind {
	case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController", "CronJob":
	default:
		return nil, nil
	}
	if err := json.Unmarshal(o.Spec, &template); err != nil {
		return nil, fmt.Errorf("%s %s: %w", o.Kind, o.Metadata.Name, err)
	}
	spec := template.Template.Spec
	if o.Kind == "CronJob" {
		spec = template.JobTemplate.Spec.Template.Spec
	}
	if len(spec) == 0 {
		return nil, fmt.Errorf("%s %s has no pod template", o.Kind, o.Metadata.Name)
	}
	return spec, nil
}
