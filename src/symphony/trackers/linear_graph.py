"""What of Linear's API stays within a project or team: the tables of the tool's guard. Pure.

``linear_scope`` walks an agent's document along these tables. They name the fields that lead from
one record to another and stay inside, the root fields with their arguments, and the inputs of
mutations. What is not in them is refused, so a field that Linear adds is outside until it is here.

Invariant: a record of the types ``Issue``, ``Comment``, ``Attachment`` and the like is only reached
from one of the scope; where a field may lead outside, it leads to a ``Linked...`` or ``...Name``
type, of which a few plain fields can be read and nothing behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

WIDER: Final = "tracker.provider.tool_scope widens what may be called"


class OutOfScope(ValueError):
    """The document can't be shown to stay inside, or can't be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A record that a document names.

    Attributes:
        kind: ``issue``, ``comment``, ``attachment``, ``relation``, ``milestone``, ``project`` or
            ``team``.
        id: As the agent wrote it.
    """

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a document would do.

    Attributes:
        mutations: Root fields that change something, in their order.
        references: What must be in scope, each once.
    """

    mutations: tuple[str, ...]
    references: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """Which fields of a type can be read.

    Attributes:
        edges: Field with a selection -> type; a final ``+`` marks a connection.
        leaves: Plain fields; None for all of them.
        in_team: What edges lead to where the scope is a team: a project may have other teams.
        linear: Linear's name of the type, where ours is a narrower view of it.
    """

    edges: Mapping[str, str] = field(default_factory=dict)
    leaves: frozenset[str] | None = None
    in_team: Mapping[str, str] = field(default_factory=dict)
    linear: str = ""


@dataclass(frozen=True, slots=True)
class Root:
    """A root field.

    Attributes:
        type: What it returns, as an edge.
        refs: Argument -> kind of record that it names; all of them must be in scope.
        condition: Keys that lead from ``filter`` to the filter of an issue, whose condition keeps
            the list inside; None where nothing has to.
        free: Arguments that say nothing about the scope.
        input: The rule of its argument ``input``.
        scopes: Scopes in which it is allowed.
    """

    type: str
    refs: Mapping[str, str] = field(default_factory=dict)
    condition: tuple[str, ...] | None = None
    free: frozenset[str] = frozenset()
    input: str = ""
    scopes: frozenset[str] = frozenset({"project", "team"})


@dataclass(frozen=True, slots=True)
class Input:
    """An input object of a mutation.

    Attributes:
        refs: Key -> kind of record that it names.
        clearable: Per scope ("" for all), keys of ``refs`` that may be null.
        free: Other keys.
        required: Per scope ("" for all), keys of which one must be there and not null.
    """

    refs: Mapping[str, str]
    free: frozenset[str]
    clearable: Mapping[str, frozenset[str]] = field(default_factory=dict)
    required: Mapping[str, frozenset[str]] = field(default_factory=dict)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _edges(text: str) -> dict[str, str]:
    """``a:T b:U+`` as a map."""
    return {name: kind for name, _, kind in (word.partition(":") for word in text.split())}


PAGING: Final = _words("first last before after includeArchived orderBy sort")
"""Arguments of every list."""

SHAPES: Final[Mapping[str, Shape]] = {
    "Issue": Shape(
        _edges(
            "assignee:User attachments:Attachment+ botActor:ActorBot children:LinkedIssue+ "
            "comments:Comment+ creator:User cycle:Cycle delegate:User documents:Document+ "
            "externalUserCreator:ExternalUser history:IssueHistory+ "
            "inverseRelations:IssueRelation+ labels:IssueLabel+ parent:LinkedIssue "
            "project:Project projectMilestone:ProjectMilestone reactions:Reaction "
            "relations:IssueRelation+ snoozedBy:User state:WorkflowState subscribers:User+ "
            "team:Team"
        ),
        in_team={"project": "ProjectName"},
    ),
    "LinkedIssue": Shape(
        _edges("assignee:User project:ProjectName state:WorkflowState team:TeamName"),
        _words(
            "archivedAt branchName canceledAt completedAt createdAt dueDate estimate id identifier "
            "number priority priorityLabel startedAt title updatedAt url"
        ),
        linear="Issue",
    ),
    "IssueRelation": Shape(_edges("issue:LinkedIssue relatedIssue:LinkedIssue")),
    "IssueHistory": Shape(
        _edges(
            "actor:User actors:User addedLabels:IssueLabel botActor:ActorBot "
            "fromAssignee:User fromCycle:Cycle fromParent:LinkedIssue fromProject:ProjectName "
            "fromState:WorkflowState fromTeam:TeamName removedLabels:IssueLabel toAssignee:User "
            "toCycle:Cycle toParent:LinkedIssue toProject:ProjectName toState:WorkflowState "
            "toTeam:TeamName"
        )
    ),
    "Comment": Shape(
        _edges(
            "botActor:ActorBot children:Comment+ externalUser:ExternalUser issue:Issue "
            "onBehalfOf:User parent:Comment reactions:Reaction resolvingComment:Comment "
            "resolvingUser:User user:User"
        )
    ),
    "Attachment": Shape(
        _edges(
            "creator:User externalUserCreator:ExternalUser issue:Issue originalIssue:LinkedIssue"
        )
    ),
    "Document": Shape(
        _edges("creator:User updatedBy:User"),
        _words("archivedAt content createdAt icon id slugId title trashed updatedAt url"),
    ),
    "Reaction": Shape(_edges("externalUser:ExternalUser user:User")),
    "Project": Shape(
        _edges(
            "creator:User documents:Document+ externalLinks:EntityExternalLink+ issues:Issue+ "
            "labels:ProjectLabel+ lastUpdate:ProjectUpdate lead:User members:User+ "
            "projectMilestones:ProjectMilestone+ projectUpdates:ProjectUpdate+ "
            "status:ProjectStatus teams:Team+"
        )
    ),
    "ProjectName": Shape({}, _words("id name slugId url"), linear="Project"),
    "ProjectMilestone": Shape({}),
    "ProjectUpdate": Shape(_edges("user:User")),
    "ProjectStatus": Shape({}),
    "ProjectLabel": Shape({}, _words("color description id name")),
    "EntityExternalLink": Shape({}, _words("createdAt id label url")),
    "Team": Shape(
        _edges(
            "activeCycle:Cycle cycles:Cycle+ defaultIssueState:WorkflowState labels:IssueLabel+ "
            "members:User+ states:WorkflowState+"
        ),
        _words(
            "color cyclesEnabled description displayName icon id issueEstimationType key name "
            "timezone"
        ),
    ),
    "TeamName": Shape({}, _words("id key name"), linear="Team"),
    "WorkflowState": Shape(_edges("team:TeamName")),
    "IssueLabel": Shape(_edges("parent:IssueLabel children:IssueLabel+ team:TeamName")),
    "Cycle": Shape({}, _words("completedAt description endsAt id isActive name number startsAt")),
    "User": Shape(
        {}, _words("active app avatarUrl displayName email guest id initials isMe name url")
    ),
    "ExternalUser": Shape({}, _words("avatarUrl displayName id name")),
    "ActorBot": Shape({}),
    "IssuePriorityValue": Shape({}),
    "RateLimitPayload": Shape(_edges("limits:RateLimitResultPayload")),
    "RateLimitResultPayload": Shape({}),
    "IssuePayload": Shape(_edges("issue:Issue")),
    "IssueBatchPayload": Shape(_edges("issues:Issue")),
    "IssueArchivePayload": Shape(_edges("entity:Issue")),
    "CommentPayload": Shape(_edges("comment:Comment")),
    "AttachmentPayload": Shape(_edges("attachment:Attachment")),
    "IssueRelationPayload": Shape(_edges("issueRelation:IssueRelation")),
    "ReactionPayload": Shape(_edges("reaction:Reaction")),
    "IssueLabelPayload": Shape(_edges("issueLabel:IssueLabel")),
    "DeletePayload": Shape({}),
    "UploadPayload": Shape(_edges("uploadFile:UploadFile")),
    "UploadFile": Shape(_edges("headers:UploadFileHeader")),
    "UploadFileHeader": Shape({}),
    "PageInfo": Shape({}),
}
"""Types by our names."""

QUERIES: Final[Mapping[str, Root]] = {
    "attachment": Root("Attachment", {"id": "attachment"}),
    "comment": Root("Comment", {"id": "comment"}),
    "comments": Root("Comment+", condition=("issue",)),
    "issue": Root("Issue", {"id": "issue"}),
    "issueLabel": Root("IssueLabel", free=_words("id")),
    "issueLabels": Root("IssueLabel+", free=_words("filter")),
    "issuePriorityValues": Root("IssuePriorityValue"),
    "issueRelation": Root("IssueRelation", {"id": "relation"}),
    "issues": Root("Issue+", condition=()),
    "project": Root("Project", {"id": "project"}, scopes=_words("project")),
    "rateLimitStatus": Root("RateLimitPayload"),
    "team": Root("Team", {"id": "team"}),
    "user": Root("User", free=_words("id")),
    "users": Root("User+", free=_words("filter includeDisabled")),
    "viewer": Root("User"),
    "workflowState": Root("WorkflowState", free=_words("id")),
    "workflowStates": Root("WorkflowState+", free=_words("filter")),
}
"""Root fields of queries; beside them introspection."""

_ISSUE: Final = {"id": "issue"}
_LINK: Final = {"issueId": "issue"}

MUTATIONS: Final[Mapping[str, Root]] = {
    "attachmentCreate": Root("AttachmentPayload", input="AttachmentCreateInput"),
    "attachmentDelete": Root("DeletePayload", {"id": "attachment"}),
    "attachmentLinkGitHubIssue": Root("AttachmentPayload", _LINK, free=_words("id title url")),
    "attachmentLinkGitHubPR": Root(
        "AttachmentPayload", _LINK, free=_words("id linkKind title url")
    ),
    "attachmentLinkGitLabMR": Root(
        "AttachmentPayload", _LINK, free=_words("id number projectPathWithNamespace title url")
    ),
    "attachmentLinkURL": Root("AttachmentPayload", _LINK, free=_words("id title url")),
    "attachmentUpdate": Root(
        "AttachmentPayload", {"id": "attachment"}, input="AttachmentUpdateInput"
    ),
    "commentCreate": Root("CommentPayload", input="CommentCreateInput"),
    "commentDelete": Root("DeletePayload", {"id": "comment"}),
    "commentResolve": Root("CommentPayload", {"id": "comment", "resolvingCommentId": "comment"}),
    "commentUnresolve": Root("CommentPayload", {"id": "comment"}),
    "commentUpdate": Root(
        "CommentPayload",
        {"id": "comment"},
        free=_words("skipEditedAt"),
        input="CommentUpdateInput",
    ),
    "fileUpload": Root(
        "UploadPayload", free=_words("contentType filename makePublic metaData size")
    ),
    "issueAddLabel": Root("IssuePayload", _ISSUE, free=_words("labelId")),
    "issueArchive": Root("IssueArchivePayload", _ISSUE, free=_words("trash")),
    "issueBatchUpdate": Root("IssueBatchPayload", {"ids": "issue"}, input="IssueUpdateInput"),
    "issueCreate": Root("IssuePayload", input="IssueCreateInput"),
    "issueDelete": Root("IssueArchivePayload", _ISSUE),
    "issueLabelCreate": Root(
        "IssueLabelPayload", input="IssueLabelCreateInput", scopes=_words("team")
    ),
    "issueRelationCreate": Root("IssueRelationPayload", input="IssueRelationCreateInput"),
    "issueRelationDelete": Root("DeletePayload", {"id": "relation"}),
    "issueRelationUpdate": Root(
        "IssueRelationPayload", {"id": "relation"}, input="IssueRelationUpdateInput"
    ),
    "issueRemoveLabel": Root("IssuePayload", _ISSUE, free=_words("labelId")),
    "issueSubscribe": Root("IssuePayload", _ISSUE, free=_words("userEmail userId")),
    "issueUnarchive": Root("IssueArchivePayload", _ISSUE),
    "issueUnsubscribe": Root("IssuePayload", _ISSUE, free=_words("userEmail userId")),
    "issueUpdate": Root("IssuePayload", _ISSUE, input="IssueUpdateInput"),
    "reactionCreate": Root("ReactionPayload", input="ReactionCreateInput"),
}
"""Root fields of mutations."""

_WORK: Final = _words(
    "assigneeId cycleId delegateId description descriptionData dueDate estimate labelIds priority "
    "prioritySortOrder sortOrder stateId subIssueSortOrder subscriberIds title"
)
_PLACES: Final = {
    "parentId": "issue",
    "projectId": "project",
    "projectMilestoneId": "milestone",
    "teamId": "team",
}

_LEAVABLE: Final = {"": _words("parentId projectMilestoneId"), "team": _words("projectId")}

INPUTS: Final[Mapping[str, Input]] = {
    "AttachmentCreateInput": Input(
        _LINK,
        _words("commentBody commentBodyData groupBySource iconUrl id metadata subtitle title url"),
        required={"": _words("issueId")},
    ),
    "AttachmentUpdateInput": Input({}, _words("iconUrl metadata subtitle title")),
    "CommentCreateInput": Input(
        {"issueId": "issue", "parentId": "comment"},
        _words("body bodyData doNotSubscribeToIssue id quotedText subscriberIds"),
        clearable={"": _words("parentId")},
        required={"": _words("issueId parentId")},
    ),
    "CommentUpdateInput": Input(
        {"resolvingCommentId": "comment"},
        _words("body bodyData doNotSubscribeToIssue quotedText resolvingUserId subscriberIds"),
        clearable={"": _words("resolvingCommentId")},
    ),
    "IssueCreateInput": Input(
        _PLACES,
        _WORK | {"id"},
        clearable=_LEAVABLE,
        required={"project": _words("projectId"), "team": _words("teamId")},
    ),
    "IssueLabelCreateInput": Input(
        {"teamId": "team"},
        _words("color description id isGroup name parentId"),
        required={"": _words("teamId")},
    ),
    "IssueRelationCreateInput": Input(
        {"issueId": "issue", "relatedIssueId": "issue"},
        _words("id type"),
        required={"": _words("issueId")},
    ),
    "IssueRelationUpdateInput": Input(
        {"issueId": "issue", "relatedIssueId": "issue"}, _words("type")
    ),
    "IssueUpdateInput": Input(
        _PLACES,
        _WORK | _words("addedLabelIds removedLabelIds snoozedById snoozedUntilAt trashed"),
        clearable=_LEAVABLE,
    ),
    "ReactionCreateInput": Input(
        {"issueId": "issue", "commentId": "comment"},
        _words("emoji id"),
        required={"": _words("issueId commentId")},
    ),
}
"""Input objects of mutations, by Linear's names."""
