// Flower's own list of tasks: what names workflow, node and attempt in a row of ours leads to the run.
const { run } = document.getElementById("tasks-of-runs").dataset;
const { jQuery } = window;

function link(cell, id) {
  const made = document.createElement("a");
  made.href = run.replace(/-$/, "") + encodeURIComponent(id);
  made.title = `Run ${id} in Pipelines`;
  made.append(...cell.childNodes);
  cell.append(made);
}

jQuery("#tasks-table").on("draw.dt", (_, settings) => {
  const table = new jQuery.fn.dataTable.Api(settings);
  const column = table.columns().dataSrc().toArray().indexOf("args");
  if (column < 0) return;
  table.rows().every(function () {
    const task = this.data();
    if (task.root_id && task.args && (task.name || "").startsWith("graflow.")) {
      link(table.cell(this.index(), column).node(), task.root_id);
    }
  });
});
