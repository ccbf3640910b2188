#include "hadal/report/recipe_page.h"

#include "hadal/base/text.h"
#include "hadal/report/axis.h"
#include "hadal/report/curves.h"
#include "hadal/report/page_style.h"
#include "hadal/report/summary.h"
#include "hadal/report/svg.h"

namespace hadal {
namespace {

std::string cells(const std::vector<std::string>& texts, const char* tag) {
  std::string out;
  for (const std::string& text : texts) out += cat("<", tag, ">", escape_xml(text), "</", tag, ">");
  return out;
}

std::string table_html(const TableOf& table) {
  std::string rows;
  for (const std::vector<std::string>& row : table.rows)
    rows += cat("<tr><th scope=row>", escape_xml(row.front()), "</th>",
                cells({row.begin() + 1, row.end()}, "td"), "</tr>\n");
  return cat("<h2>", escape_xml(table.title), "</h2>\n<div class=wide><table><thead><tr>",
             cells(table.head, "th"), "</tr></thead><tbody>\n", rows, "</tbody></table></div>\n",
             table.note.empty() ? "" : "<p class=note>" + escape_xml(table.note) + "</p>\n");
}

TableOf costs(const std::vector<StageCost>& stages) {
  TableOf table{.title = "Time and memory by stage",
                .head = {"Stage", "Time", "CPU time", "Peak memory"},
                .rows = {},
                .note = ""};
  StageCost all;
  const auto row = [&](const std::string& name, const StageCost& one) {
    table.rows.push_back({name, duration_text(one.seconds), duration_text(one.cpu_seconds),
                          cat(with_commas(one.peak_bytes >> 20), " MiB")});
  };
  for (const StageCost& one : stages) {
    row(one.title, one);
    all.seconds += one.seconds, all.cpu_seconds += one.cpu_seconds;
    all.peak_bytes = std::max(all.peak_bytes, one.peak_bytes);
  }
  row("all", all);
  return table;
}

std::string sample_html(const SampleBlock& block) {
  std::string rows;
  for (const SampleText& one : block.texts) {
    const char* mark = one.right < 0 ? "" : one.right ? "<b class=c2>right</b> " : "<b class=c6>wrong</b> ";
    rows += cat("<tr><th scope=row>", escape_xml(one.model), "</th><td>", mark, "<pre>", escape_xml(one.text),
                "</pre></td></tr>\n");
  }
  return cat("<div class=wide><table><thead><tr><th></th><th><pre>", escape_xml(block.prompt),
             "</pre></th></tr></thead><tbody>\n", rows, "</tbody></table></div>\n");
}

}  // namespace

std::string recipe_html(const RecipePage& page) {
  std::string body = page.subtitle.empty() ? "" : cat("<p class=note>", escape_xml(page.subtitle), "</p>\n");
  for (const TableOf& table : page.tables) body += table_html(table);
  if (!page.stages.empty()) body += table_html(costs(page.stages));
  if (!page.samples.empty()) body += "<h2>What the models say, stage by stage</h2>\n";
  for (const SampleBlock& block : page.samples) body += sample_html(block);
  for (const RunMetrics& run : page.runs) {
    body += cat("<h2>Stage: ", escape_xml(run.name), "</h2>\n", summary_html({run}), curves_html({run}, {}));
    const std::string loads = expert_loads_html({run}, {});
    if (!loads.empty()) body += "<h3>Load of the experts</h3>\n" + loads;
  }
  return page_html(page.title, body);
}

}  // namespace hadal
