#include <CLI/CLI.hpp>
#include <vector>

#include "hadal/base/text.h"
#include "hadal/cli/command_line.h"
#include "hadal/cli/output.h"

namespace hadal {
namespace {

// What a shell needs to know, taken from the command table.
struct Word {
  std::string text, help;  // "run", "--dtype"
  bool takes_value = false, files = false;
  std::vector<std::string> choices;  // of the value
};
struct Command {
  std::string path, help;  // "tokenizer encode"; "" for the program itself
  std::vector<Word> subcommands, options;
  std::vector<std::string> first_choices;  // of the first argument, e.g. the shells of "completion"
};

std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();  // "a|b|c", see choice_flag()
  std::vector<std::string> choices;
  if (type.find('|') != std::string::npos) choices = CLI::detail::split(type, '|');
  return choices;
}

void collect(const CLI::App& app, const std::string& path, std::vector<Command>& commands) {
  Command command{path, app.get_description(), {}, {}, {}};
  for (const CLI::App* sub : app.get_subcommands({}))
    command.subcommands.push_back({sub->get_name(), sub->get_description()});
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty()) {
      if (option->get_positional() && command.first_choices.empty())
        command.first_choices = choices_of(*option);
      continue;
    }
    const std::string type = option->get_type_name();
    command.options.push_back({"--" + option->get_lnames()[0], option->get_description(),
                               option->get_items_expected_max() > 0, type == "FILE" || type == "DIR",
                               choices_of(*option)});
  }
  commands.push_back(command);
  for (const CLI::App* sub : app.get_subcommands({}))
    collect(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), commands);
}

std::string words(const std::vector<Word>& list) {
  std::string text;
  for (const Word& word : list) text += (text.empty() ? "" : " ") + word.text;
  return text;
}

std::string joined(const std::vector<std::string>& list) {
  return CLI::detail::join(list, " ");
}

// 'text' with quotes of the text made safe for a shell.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// case arms "path:--flag" for values and "path" for words; the same in bash and zsh, `value` and `set`
// differ.
std::string arms(const std::vector<Command>& commands, const char* none, const char* files,
                 const char* choose) {
  std::string out = "  case \"$path:$previous\" in\n";
  for (const Command& command : commands)
    for (const Word& option : command.options) {
      if (!option.takes_value) continue;
      out += cat("    ", quoted(command.path + ":" + option.text), ") ");
      out += option.files             ? files
             : option.choices.empty() ? none
                                      : cat(choose, " ", quoted(joined(option.choices)));
      out += "; return ;;\n";
    }
  out += "  esac\n  case \"$path\" in\n";
  for (const Command& command : commands) {
    const std::string first =
        command.subcommands.empty() ? joined(command.first_choices) : words(command.subcommands);
    out += cat("    ", quoted(command.path), ") first=", quoted(first),
               " flags=", quoted(words(command.options)), " ;;\n");
  }
  return out + "  esac\n";
}

// Finds the command path among the words before the cursor: $path grows while a word is a subcommand of it.
std::string path_arms(const std::vector<Command>& commands) {
  std::string out;
  for (const Command& command : commands)
    if (!command.path.empty()) out += (out.empty() ? "" : "|") + quoted(command.path);
  return out;
}

std::string bash_script(const std::vector<Command>& commands) {
  return cat(
      "# bash completion for hadal: source this file, or save it as\n"
      "# ~/.local/share/bash-completion/completions/hadal\n"
      "_hadal_choose() { COMPREPLY=($(compgen -W \"$1\" -- \"$current\")); }\n"
      "_hadal() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} path='' first='' "
      "flags='' i\n"
      "  COMPREPLY=()\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case \"${path:+$path }${COMP_WORDS[i]}\" in\n      ",
      path_arms(commands), ") path=\"${path:+$path }${COMP_WORDS[i]}\" ;;\n    esac\n  done\n",
      arms(commands, ":", "COMPREPLY=($(compgen -f -- \"$current\"))", "_hadal_choose"),
      "  if [[ $current == -* ]]; then _hadal_choose \"$flags\"\n"
      "  elif [[ -n $first ]]; then _hadal_choose \"$first\"\n"
      "  else COMPREPLY=($(compgen -f -- \"$current\")); fi\n"
      "}\n"
      "complete -o filenames -F _hadal hadal\n");
}

std::string zsh_script(const std::vector<Command>& commands) {
  return cat(
      "#compdef hadal\n# zsh completion for hadal: save this file as _hadal in a folder of $fpath\n"
      "_hadal_choose() { compadd -- ${=1} }\n"
      "_hadal() {\n"
      "  local current=${words[CURRENT]} previous=${words[CURRENT-1]} path_='' first='' flags='' i\n"
      "  for ((i = 2; i < CURRENT; i++)); do\n"
      "    case \"${path_:+$path_ }${words[i]}\" in\n      ",
      path_arms(commands), ") path_=\"${path_:+$path_ }${words[i]}\" ;;\n    esac\n  done\n",
      [&] {  // $path is zsh's own search path
        std::string text = arms(commands, ":", "_files", "_hadal_choose");
        for (size_t at; (at = text.find("$path")) != std::string::npos;) text.replace(at, 5, "${path_}");
        return text;
      }(),
      "  if [[ $current == -* ]]; then _hadal_choose \"$flags\"\n"
      "  elif [[ -n $first ]]; then _hadal_choose \"$first\"\n"
      "  else _files; fi\n"
      "}\n"
      "if [[ ${funcstack[1]-} == _hadal ]]; then _hadal \"$@\"; else compdef _hadal hadal; fi\n");
}

std::string fish_script(const std::vector<Command>& commands) {
  std::string out =
      "# fish completion for hadal: save this file as ~/.config/fish/completions/hadal.fish\n"
      "function __hadal_path\n  set -l path ''\n  set -l words (commandline -opc)\n"
      "  for word in $words[2..-1]\n    set -l longer (string trim -- \"$path $word\")\n"
      "    switch $longer\n      case";
  for (const Command& command : commands)
    if (!command.path.empty()) out += " " + quoted(command.path);
  out += "\n        set path $longer\n    end\n  end\n  echo $path\nend\n";
  for (const Command& command : commands) {
    const std::string at =
        cat("complete -c hadal -n ", quoted("test (__hadal_path) = \"" + command.path + "\""));
    if (!command.subcommands.empty() || !command.first_choices.empty()) out += at + " -f\n";
    for (const Word& sub : command.subcommands)
      out += cat(at, " -a ", sub.text, " -d ", quoted(sub.help), "\n");
    if (!command.first_choices.empty()) out += cat(at, " -a ", quoted(joined(command.first_choices)), "\n");
    for (const Word& option : command.options) {
      out += cat(at, " -l ", option.text.substr(2), " -d ", quoted(option.help));
      if (option.files)
        out += " -r -F";
      else if (option.takes_value)
        out += " -x";
      if (!option.choices.empty()) out += " -a " + quoted(joined(option.choices));
      out += "\n";
    }
  }
  return out;
}

}  // namespace

int run_completion(const CompletionOptions& options, const CLI::App& commands) {
  std::vector<Command> table;
  collect(commands, "", table);
  print(options.shell == "bash"  ? bash_script(table)
        : options.shell == "zsh" ? zsh_script(table)
                                 : fish_script(table));
  return 0;
}

}  // namespace hadal
