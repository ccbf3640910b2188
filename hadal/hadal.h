// All public headers: hadal as a library. PUBLIC, torch-free.
#pragma once
#include "hadal/checkpoint.h"
#include "hadal/config.h"
#include "hadal/engine.h"
#include "hadal/error.h"
#include "hadal/planner.h"
#include "hadal/sampling.h"
#include "hadal/tokenizer.h"
