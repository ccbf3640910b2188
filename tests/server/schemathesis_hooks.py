"""For schemathesis against a running server: SCHEMATHESIS_HOOKS=schemathesis_hooks, with this folder in PYTHONPATH.

Two demands of the server cannot be said in OpenAPI: that some answer satisfies a JSON Schema (no bound above
another, no required key that may not occur), and that tool_choice names one of the request's tools, whose names
differ. What is drawn at random fits the description and misses them most of the time. Where a request should be
taken, this sees to both; all else is as drawn.
"""
import json

import schemathesis

SCHEMAS = [
    {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False},
    {"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 8},
                                      "age": {"type": ["integer", "null"], "minimum": 0, "maximum": 130}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "object", "properties": {"colours": {"type": "array", "items": {"enum": ["red", "green", "blue"]},
                                                  "minItems": 1, "maxItems": 3}}, "required": ["colours"]},
    {"type": "object", "properties": {"day": {"type": "string", "format": "date"},
                                      "share": {"type": "number", "minimum": 0, "exclusiveMaximum": 1}}},
    {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False,
     "$defs": {"node": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}]}}},
]


def satisfiable(drawn):
    return SCHEMAS[sum(json.dumps(drawn).encode()) % len(SCHEMAS)] if isinstance(drawn, dict) else drawn


def replace(holder, key):
    if isinstance(holder, dict) and key in holder:
        holder[key] = satisfiable(holder[key])


def name_a_tool(body, tools):
    names = []
    for tool in tools:
        function = tool["function"]
        while function["name"] in names:
            function["name"] = function["name"][:60] + str(len(names))
        names.append(function["name"])
    choice = body.get("tool_choice")
    if not names and (isinstance(choice, dict) or choice == "required"):
        del body["tool_choice"]
    elif isinstance(choice, dict):
        choice["function"]["name"] = names[-1]


@schemathesis.hook
def before_call(context, case, kwargs):
    if not isinstance(case.body, dict) or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    form = case.body.get("response_format")
    if isinstance(form, dict):
        replace(form.get("json_schema"), "schema")
    tools = case.body.get("tools") or []
    for tool in tools:
        replace(tool["function"], "parameters")
    name_a_tool(case.body, tools)
