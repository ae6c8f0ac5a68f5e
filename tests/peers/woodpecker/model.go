package main

// The documents on the wire, with the field names, types and omitted fields of Woodpecker 3.17 (server/model). What
// a pipeline never carries when it asks for secrets (its errors and workflows) is left untyped.

// Event is what a pipeline runs for.
type Event string

// Secret is one secret, in both directions.
type Secret struct {
	ID     int64    `json:"id"`
	OrgID  int64    `json:"org_id"`
	RepoID int64    `json:"repo_id"`
	Name   string   `json:"name"`
	Value  string   `json:"value,omitempty"`
	Images []string `json:"images"`
	Events []Event  `json:"events"`
	Note   string   `json:"note"`
}

// Registry is the credentials for one registry.
type Registry struct {
	Address  string `json:"address"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// Netrc is the repository owner's credentials at the forge.
type Netrc struct {
	Machine  string `json:"machine"`
	Login    string `json:"login"`
	Password string `json:"password"`
	Type     string `json:"type"`
}

// Question is the body of the released form.
type Question struct {
	Repo     *Repo     `json:"repo"`
	Pipeline *Pipeline `json:"pipeline"`
	Netrc    *Netrc    `json:"netrc,omitempty"`
}

// Trusted is what a repository's containers may do.
type Trusted struct {
	Network  bool `json:"network"`
	Volumes  bool `json:"volumes"`
	Security bool `json:"security"`
}

// Repo is the repository that a pipeline belongs to.
type Repo struct {
	ID                           int64    `json:"id,omitempty"`
	ForgeID                      int64    `json:"forge_id,omitempty"`
	ForgeRemoteID                string   `json:"forge_remote_id"`
	OrgID                        int64    `json:"org_id"`
	Owner                        string   `json:"owner"`
	Name                         string   `json:"name"`
	FullName                     string   `json:"full_name"`
	AvatarURL                    string   `json:"avatar_url,omitempty"`
	ForgeURL                     string   `json:"forge_url,omitempty"`
	CloneURL                     string   `json:"clone_url,omitempty"`
	CloneURLSSH                  string   `json:"clone_url_ssh"`
	DefaultBranch                string   `json:"default_branch,omitempty"`
	PREnabled                    bool     `json:"pr_enabled"`
	Timeout                      int64    `json:"timeout,omitempty"`
	Visibility                   string   `json:"visibility"`
	Private                      bool     `json:"private"`
	Trusted                      Trusted  `json:"trusted"`
	RequireApproval              string   `json:"require_approval"`
	ApprovalAllowedUsers         []string `json:"approval_allowed_users"`
	Active                       bool     `json:"active"`
	AllowPR                      bool     `json:"allow_pr"`
	AllowDeploy                  bool     `json:"allow_deploy"`
	ConfigFile                   string   `json:"config_file"`
	CancelPreviousPipelineEvents []Event  `json:"cancel_previous_pipeline_events"`
	NetrcTrusted                 []string `json:"netrc_trusted"`
	ConfigExtensionEndpoint      string   `json:"config_extension_endpoint"`
	ConfigExtensionExclusive     bool     `json:"config_extension_exclusive"`
	ConfigExtensionNetrc         bool     `json:"config_extension_netrc"`
	RegistryExtensionEndpoint    string   `json:"registry_extension_endpoint"`
	RegistryExtensionNetrc       bool     `json:"registry_extension_netrc"`
	SecretExtensionEndpoint      string   `json:"secret_extension_endpoint"`
	SecretExtensionNetrc         bool     `json:"secret_extension_netrc"`
	HasForgeNameConflict         bool     `json:"has_forge_name_conflict,omitempty"`
	HasNoForgeRepo               bool     `json:"has_no_forge_repo,omitempty"`
}

// Pipeline is the pipeline that asks.
type Pipeline struct {
	ID           int64             `json:"id"`
	Number       int64             `json:"number"`
	Author       string            `json:"author"`
	Parent       int64             `json:"parent"`
	Event        Event             `json:"event"`
	EventReason  []string          `json:"event_reason"`
	Status       string            `json:"status"`
	Errors       []any             `json:"errors"`
	Created      int64             `json:"created"`
	Updated      int64             `json:"updated"`
	Started      int64             `json:"started"`
	Finished     int64             `json:"finished"`
	DeployTo     string            `json:"deploy_to"`
	DeployTask   string            `json:"deploy_task"`
	Commit       string            `json:"commit"`
	Branch       string            `json:"branch"`
	RerunCount   int64             `json:"rerun_count"`
	Ref          string            `json:"ref"`
	Refspec      string            `json:"refspec"`
	AuthorAvatar string            `json:"author_avatar"`
	ForgeURL     string            `json:"forge_url"`
	ReviewedBy   string            `json:"reviewed_by"`
	Reviewed     int64             `json:"reviewed"`
	CancelInfo   any               `json:"cancel_info,omitempty"`
	Workflows    []any             `json:"workflows,omitempty"`
	ChangedFiles []string          `json:"changed_files,omitempty"`
	Variables    map[string]string `json:"variables,omitempty"`
	PRLabels     []string          `json:"pr_labels,omitempty"`
	PRMilestone  string            `json:"pr_milestone,omitempty"`
	PRDraft      bool              `json:"pr_draft,omitempty"`
	Cron         string            `json:"cron,omitempty"`
	FromFork     bool              `json:"from_fork,omitempty"`
	Version      string            `json:"version"`
	Release      any               `json:"release,omitempty"`
	TagTitle     string            `json:"tag_title,omitempty"`
	Title        string            `json:"title"`
	Message      string            `json:"message"`
	Timestamp    int64             `json:"timestamp"`
	Sender       string            `json:"sender"`
	AuthorEmail  string            `json:"author_email"`
}
