package genpolicy

import "encoding/json"

// any value, of a field that has no part in what a container runs: who schedules
// it, what restarts it, how the network is configured.
type ignored = json.RawMessage

// podSpec has every field that is understood. A field that is not named here is
// refused: it may be one that matters.
type podSpec struct {
	Containers            []container `json:"containers"`
	InitContainers        []container `json:"initContainers"`
	EphemeralContainers   []container `json:"ephemeralContainers"`
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
	EnvFrom                  []envFrom         `json:"envFrom"`
	VolumeMounts             []volumeMount     `json:"volumeMounts"`
	VolumeDevices            []volumeDevice    `json:"volumeDevices"`
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
	Resources                resources         `json:"resources"`
	RestartPolicy            ignored           `json:"restartPolicy"` // Always makes an init container a sidecar, which is a container
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
	ConfigMapKeyRef  *keyRef   `json:"configMapKeyRef"`
	SecretKeyRef     *keyRef   `json:"secretKeyRef"`
}

// keyRef names one value of a config map or a secret.
type keyRef struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Optional *bool  `json:"optional"`
}

// envFrom takes all values of one for variables.
type envFrom struct {
	Prefix       string     `json:"prefix"`
	ConfigMapRef *objectRef `json:"configMapRef"`
	SecretRef    *objectRef `json:"secretRef"`
}

type objectRef struct {
	Name     string  `json:"name"`
	Optional ignored `json:"optional"` // who leaves it out of the file does not say that it is absent
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
	SubPathExpr       string  `json:"subPathExpr"`
	RecursiveReadOnly ignored `json:"recursiveReadOnly"`
}

// volumeDevice is a volume that a container has as a device.
type volumeDevice struct {
	Name       string `json:"name"`
	DevicePath string `json:"devicePath"`
}

// resources are limits, and the devices of a node's device plugins.
type resources struct {
	Limits   map[string]any `json:"limits"`
	Requests map[string]any `json:"requests"`
	Claims   ignored        `json:"claims"`
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

// volume has the kinds of volumes that are understood; one of them is set.
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
	Claim     ignored `json:"persistentVolumeClaim"`
	Ephemeral ignored `json:"ephemeral"`
	CSI       ignored `json:"csi"`
	HostPath  *struct {
		Path string `json:"path"`
		Type string `json:"type"`
	} `json:"hostPath"`
}
