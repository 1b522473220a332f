"""A server with every tool, prompt and resource that the official conformance suite asks for, over stdio.

It is written on the 2.x line of the SDK, for 2026-07-28: what it needs to know of the client it asks for by
`input_required`. To a client that opened an older session it sends those questions as requests, during the
call. The suite's descriptions of its scenarios say what each name has to do.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError

Context = ServerRequestContext[Any, Any]
Result = dict[str, Any]
Tool = Callable[[Context, types.CallToolRequestParams], Awaitable[Result]]

INVALID_PARAMS = -32602
MISSING_CAPABILITY = -32021

STEP_S = 0.05
MODERN = ("2026-07-28",)
KINDS: dict[str, tuple[Any, Any]] = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
KEY = secrets.token_bytes(32)
BUS = InMemorySubscriptionBus()


def _png() -> str:
    """One red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + head + body).decode()


def _wav() -> str:
    """Silence, of eight samples."""
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    body = b"data" + struct.pack("<I", 8) + b"\x80" * 8
    return base64.b64encode(b"RIFF" + struct.pack("<I", len(head) + len(body)) + head + body).decode()


IMAGE = {"type": "image", "data": _png(), "mimeType": "image/png"}


def _text(text: str) -> Result:
    return {"type": "text", "text": text}


def _embedded(uri: str, kind: str, text: str) -> Result:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}}


def _done(*content: Result, **more: Any) -> Result:
    return {"resultType": "complete", "content": list(content), **more}


# --- what is asked of the client -------------------------------------------------------------------------


def _form(message: str, /, **properties: Any) -> Result:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": message, "requestedSchema": schema},
    }


def _sampling(text: str, tokens: int = 100) -> Result:
    message = {"role": "user", "content": _text(text)}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": tokens}}


ROOTS: Result = {"method": "roots/list", "params": {}}
STRING = {"type": "string"}
NAME = _form("What is your name?", name=STRING)


def _ask(state: str | None = None, /, **questions: Result) -> Result:
    asked: Result = {"resultType": "input_required", "inputRequests": questions}
    return asked if state is None else {**asked, "requestState": state}


def _signed(text: str) -> str:
    return f"{text}.{hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()}"


def _checked(state: str | None) -> str:
    """The text of a state of our own."""
    text = (state or "").rpartition(".")[0]
    if not hmac.compare_digest(_signed(text), state or ""):
        raise MCPError(INVALID_PARAMS, "requestState was changed")
    return text


def _answers(params: Any) -> dict[str, Result]:
    """What the client answered, as plain data; what is no object is left out."""
    given = params.input_responses or {}
    plain = {
        key: one if isinstance(one, dict) else one.model_dump(by_alias=True) for key, one in given.items()
    }
    return {key: one for key, one in plain.items() if isinstance(one, dict)}


def _content(answer: Result | None, field: str) -> Any:
    """One field of an accepted form; `None` where it is not there."""
    content = (answer or {}).get("content")
    return content.get(field) if isinstance(content, dict) else None


def _capabilities(context: Context) -> dict[str, Any]:
    found = context.session.client_capabilities
    return {} if found is None else found.model_dump(by_alias=True, exclude_none=True)


# --- tools -----------------------------------------------------------------------------------------------

TOOLS: dict[str, tuple[types.Tool, Tool]] = {}


def tool(name: str, /, **properties: Any) -> Callable[[Tool], Tool]:
    """Offer a function as the tool of this name, with these required arguments."""

    def offer(run: Tool) -> Tool:
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        TOOLS[name] = (
            types.Tool(name=name, description=(run.__doc__ or name).strip(), input_schema=schema),
            run,
        )
        return run

    return offer


def _constant(name: str, about: str, *content: Result, **more: Any) -> None:
    async def run(_: Context, __: types.CallToolRequestParams) -> Result:
        return _done(*content, **more)

    run.__doc__ = about
    tool(name)(run)


_constant("test_simple_text", "Returns a text.", _text("This is a simple text response for testing."))
_constant("test_image_content", "Returns an image.", IMAGE)
_constant(
    "test_audio_content",
    "Returns a sound.",
    {"type": "audio", "data": _wav(), "mimeType": "audio/wav"},
)
_constant(
    "test_embedded_resource",
    "Returns a resource.",
    _embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."),
)
_constant(
    "test_multiple_content_types",
    "Returns several kinds of content.",
    _text("Multiple content types test:"),
    IMAGE,
    _embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
)
_constant(
    "test_error_handling",
    "Always fails.",
    _text("This tool intentionally returns an error for testing"),
    isError=True,
)


async def _logging(context: Context, _: types.CallToolRequestParams) -> Result:
    """Logs three lines while it runs."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message("info", text, related_request_id=context.request_id)
        await anyio.sleep(STEP_S)
    return _done(_text("Logged three lines"))


for name in ("test_tool_with_logging", "test_logging_tool"):
    tool(name)(_logging)


@tool("test_tool_with_progress")
async def _progress(context: Context, _: types.CallToolRequestParams) -> Result:
    """Reports its progress."""
    for progress in (0, 50, 100):
        await context.session.report_progress(progress, 100)
        await anyio.sleep(STEP_S)
    return _done(_text("Reported its progress"))


@tool("test_custom_header", region={**STRING, "x-mcp-header": "Region"})
async def _custom_header(_: Context, params: types.CallToolRequestParams) -> Result:
    """Takes an argument that a header repeats."""
    return _done(_text(str((params.arguments or {}).get("region"))))


@tool("test_sampling", prompt=STRING)
async def _sample(_: Context, params: types.CallToolRequestParams) -> Result:
    """Asks the client's model."""
    answer = _answers(params).get("llm")
    if answer is None:
        return _ask(llm=_sampling(str((params.arguments or {}).get("prompt"))))
    content = answer.get("content")
    text = content.get("text") if isinstance(content, dict) else None
    return _done(_text(f"LLM response: {text}"))


@tool("test_elicitation", message=STRING)
async def _elicit(_: Context, params: types.CallToolRequestParams) -> Result:
    """Asks the user of the client."""
    answer = _answers(params).get("user")
    if answer is None:
        message = str((params.arguments or {}).get("message"))
        username = {**STRING, "description": "User's response"}
        return _ask(
            user=_form(message, username=username, email={**STRING, "description": "User's email address"})
        )
    return _done(_text(f"User response: {_said(answer)}"))


def _said(answer: Result) -> str:
    return f"action={answer.get('action')}, content={json.dumps(answer.get('content'))}"


def _elicits(called: str, /, **properties: Any) -> None:
    async def run(_: Context, params: types.CallToolRequestParams) -> Result:
        """Asks the user of the client to fill in a form."""
        answer = _answers(params).get("form")
        if answer is None:
            return _ask(form=_form("Please fill in this form", **properties))
        return _done(_text(f"Elicitation completed: {_said(answer)}"))

    tool(called)(run)


def _titled(*titles: str) -> list[Result]:
    return [{"const": f"value{n}", "title": title} for n, title in enumerate(titles, 1)]


_elicits(
    "test_elicitation_sep1034_defaults",
    name={**STRING, "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={**STRING, "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
_elicits(
    "test_elicitation_sep1330_enums",
    untitledSingle={**STRING, "enum": ["option1", "option2", "option3"]},
    titledSingle={**STRING, "oneOf": _titled("First Option", "Second Option", "Third Option")},
    legacyEnum={
        **STRING,
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    untitledMulti={"type": "array", "items": {**STRING, "enum": ["option1", "option2", "option3"]}},
    titledMulti={
        "type": "array",
        "items": {"anyOf": _titled("First Choice", "Second Choice", "Third Choice")},
    },
)


@tool("test_missing_capability")
async def _needs_sampling(context: Context, _: types.CallToolRequestParams) -> Result:
    """Needs a client with sampling."""
    if "sampling" not in _capabilities(context):
        data: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_CAPABILITY, "The client has not declared sampling", data)
    return _done(_text("The client can sample"))


@tool("test_streaming_elicitation")
async def _streaming(context: Context, params: types.CallToolRequestParams) -> Result:
    """Reports its progress, then asks the user."""
    await context.session.report_progress(1, 2)
    return _ask(user_name=NAME) if not _answers(params) else _done(_text("Thank you"))


@tool("test_trigger_tool_change")
async def _change_tools(_: Context, __: types.CallToolRequestParams) -> Result:
    """Changes the list of tools."""
    if "test_changing" in TOOLS:
        del TOOLS["test_changing"]
    else:
        _constant("test_changing", "Comes and goes.", _text("here"))
    await BUS.publish(ToolsListChanged())
    return _done(_text("changed"))


@tool("test_trigger_prompt_change")
async def _change_prompts(_: Context, __: types.CallToolRequestParams) -> Result:
    """Changes the list of prompts."""
    if PROMPTS.pop("test_changing", None) is None:
        PROMPTS["test_changing"] = types.Prompt(name="test_changing", description="Comes and goes.")
    await BUS.publish(PromptsListChanged())
    return _done(_text("changed"))


@tool("test_input_required_result_elicitation")
async def _input_elicitation(_: Context, params: types.CallToolRequestParams) -> Result:
    """Asks for a name."""
    name = _content(_answers(params).get("user_name"), "name")
    return _done(_text(f"Hello, {name}!")) if isinstance(name, str) else _ask(user_name=NAME)


@tool("test_input_required_result_sampling")
async def _input_sampling(_: Context, params: types.CallToolRequestParams) -> Result:
    """Asks the client's model for a capital."""
    answer = _answers(params).get("capital_question")
    if answer is None:
        return _ask(capital_question=_sampling("What is the capital of France?"))
    return _done(_text(f"The model says: {json.dumps(answer.get('content'))}"))


@tool("test_input_required_result_list_roots")
async def _input_roots(_: Context, params: types.CallToolRequestParams) -> Result:
    """Asks for the client's roots."""
    answer = _answers(params).get("client_roots")
    if answer is None:
        return _ask(client_roots=ROOTS)
    return _done(_text(f"The roots are {json.dumps(answer.get('roots'), default=str)}"))


@tool("test_input_required_result_request_state")
async def _input_state(_: Context, params: types.CallToolRequestParams) -> Result:
    """Asks with a state."""
    if "confirm" not in _answers(params):
        return _ask(_signed("confirm"), confirm=_form("Please confirm", ok={"type": "boolean"}))
    _checked(params.request_state)
    return _done(_text("state-ok"))


@tool("test_input_required_result_multiple_inputs")
async def _input_many(_: Context, params: types.CallToolRequestParams) -> Result:
    """Asks several things at once."""
    answers = _answers(params)
    if not {"user_name", "greeting", "client_roots"} <= answers.keys():
        greeting = _sampling("Generate a greeting", 50)
        return _ask(_signed("many"), user_name=NAME, greeting=greeting, client_roots=ROOTS)
    _checked(params.request_state)
    return _done(_text(f"Thank you, {_content(answers['user_name'], 'name')}"))


@tool("test_input_required_result_multi_round")
async def _input_rounds(_: Context, params: types.CallToolRequestParams) -> Result:
    """Asks twice."""
    answers = _answers(params)
    if "step2" in answers:
        name = _checked(params.request_state).partition(":")[2]
        return _done(_text(f"{name} likes {_content(answers['step2'], 'color')}"))
    if "step1" in answers:
        _checked(params.request_state)
        state = _signed(f"step2:{_content(answers['step1'], 'name')}")
        return _ask(state, step2=_form("Step 2: What is your favorite color?", color=STRING))
    return _ask(_signed("step1:"), step1=_form("Step 1: What is your name?", name=STRING))


@tool("test_input_required_result_tampered_state")
async def _input_tampered(_: Context, params: types.CallToolRequestParams) -> Result:
    """Refuses a state that was changed."""
    if params.request_state is None:
        return _ask(_signed("tamper"), confirm=_form("Please confirm", ok={"type": "boolean"}))
    _checked(params.request_state)
    return _done(_text("state-ok"))


@tool("test_input_required_result_capabilities")
async def _input_capabilities(context: Context, params: types.CallToolRequestParams) -> Result:
    """Asks only what the client can answer."""
    questions = {"elicitation": NAME, "sampling": _sampling("Say hello"), "roots": ROOTS}
    asked = {key: question for key, question in questions.items() if key in _capabilities(context)}
    return _ask(**asked) if asked and not _answers(params) else _done(_text("Nothing to ask"))


async def _list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[one for one, _ in TOOLS.values()])


async def _call_tool(context: Context, params: types.CallToolRequestParams) -> Result:
    if params.name not in TOOLS:
        raise MCPError(INVALID_PARAMS, f"There is no tool {params.name}")
    return await _answered(context, params, TOOLS[params.name][1])


async def _answered(
    context: Context, params: Any, run: Callable[[Context, Any], Awaitable[Result]]
) -> Result:
    """The result of a tool or prompt; a client of an older revision is asked what it needs to know."""
    result = await run(context, params)
    while result["resultType"] == "input_required" and context.session.protocol_version not in MODERN:
        answers = await _asked_at_once(context, result["inputRequests"])
        update = {"input_responses": answers, "request_state": result.get("requestState")}
        result = await run(context, params.model_copy(update=update))
    return result


async def _asked_at_once(context: Context, questions: Result) -> Result:
    """The answers of an older client to these questions."""
    answers: Result = {}

    async def ask(key: str, question: Result) -> None:
        request, answer = KINDS[question["method"]]
        answers[key] = await context.session.send_request(request.model_validate(question), answer)

    async with anyio.create_task_group() as tasks:
        for key, question in questions.items():
            tasks.start_soon(ask, key, question)
    return answers


# --- prompts ---------------------------------------------------------------------------------------------


def _prompt(name: str, about: str, *arguments: str) -> types.Prompt:
    given = [types.PromptArgument(name=one, description=one, required=True) for one in arguments]
    return types.Prompt(name=name, description=about, arguments=given)


PROMPTS = {
    one.name: one
    for one in (
        _prompt("test_simple_prompt", "A text."),
        _prompt("test_prompt_with_arguments", "A text with arguments.", "arg1", "arg2"),
        _prompt("test_prompt_with_embedded_resource", "A resource.", "resourceUri"),
        _prompt("test_prompt_with_image", "An image."),
        _prompt("test_input_required_result_prompt", "Asks the user first."),
    )
}


def _messages(*content: Result) -> Result:
    return {"resultType": "complete", "messages": [{"role": "user", "content": one} for one in content]}


async def _list_prompts(_: Context, __: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=list(PROMPTS.values()))


async def _get_prompt(context: Context, params: types.GetPromptRequestParams) -> Result:
    return await _answered(context, params, _prompted)


async def _prompted(_: Context, params: types.GetPromptRequestParams) -> Result:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return _messages(_text("This is a simple prompt for testing."))
        case "test_prompt_with_arguments":
            said = f"arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
            return _messages(_text(f"Prompt with arguments: {said}"))
        case "test_prompt_with_embedded_resource":
            text = "Embedded resource content for testing."
            resource = _embedded(str(given.get("resourceUri")), "text/plain", text)
            return _messages(resource, _text("Please process the embedded resource above."))
        case "test_prompt_with_image":
            return _messages(IMAGE, _text("Please analyze the image above."))
        case "test_input_required_result_prompt":
            context = _content(_answers(params).get("user_context"), "context")
            if context is None:
                return _ask(user_context=_form("What context should the prompt use?", context=STRING))
            return _messages(_text(f"Use this context: {context}"))
    raise MCPError(INVALID_PARAMS, f"There is no prompt {params.name}")


# --- resources -------------------------------------------------------------------------------------------

RESOURCES = (
    ("test://static-text", "text/plain", "text", "This is the content of the static text resource."),
    ("test://static-binary", "image/png", "blob", _png()),
    ("test://watched-resource", "text/plain", "text", "Watched."),
)


async def _list_resources(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
    found = [
        types.Resource(uri=uri, name=uri.rpartition("/")[2], description=f"The {field}.", mime_type=kind)
        for uri, kind, field, _ in RESOURCES
    ]
    return types.ListResourcesResult(resources=found)


async def _list_templates(
    _: Context, __: types.PaginatedRequestParams | None
) -> types.ListResourceTemplatesResult:
    template = types.ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="template",
        description="Data by its id.",
        mime_type="application/json",
    )
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def _read_resource(_: Context, params: types.ReadResourceRequestParams) -> Result:
    uri = str(params.uri)
    for known, kind, field, content in RESOURCES:
        if uri == known:
            return _contents({"uri": uri, "mimeType": kind, field: content})
    if uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.removeprefix("test://template/").removesuffix("/data")
        text = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        return _contents({"uri": uri, "mimeType": "application/json", "text": text})
    raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})


async def _subscribe(_: Context, __: Any) -> types.EmptyResult:
    """Take a subscription of an older client, or its end; no resource ever changes."""
    return types.EmptyResult()


def _contents(content: Result) -> Result:
    return {"resultType": "complete", "contents": [content], "ttlMs": 0, "cacheScope": "private"}


async def _complete(_: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    words = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=words, total=len(words), has_more=False))


server: Server[Any] = Server(
    "everything",
    version="1.0.0",
    on_list_tools=_list_tools,
    on_call_tool=_call_tool,  # type: ignore[arg-type]
    on_list_prompts=_list_prompts,
    on_get_prompt=_get_prompt,  # type: ignore[arg-type]
    on_list_resources=_list_resources,
    on_list_resource_templates=_list_templates,
    on_read_resource=_read_resource,  # type: ignore[arg-type]
    on_subscribe_resource=_subscribe,
    on_unsubscribe_resource=_subscribe,
    on_completion=_complete,
    on_subscriptions_listen=ListenHandler(BUS),
)


async def main() -> None:
    """Serve until the end of stdin."""
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
