import SwiftUI

/// A mail that the model sums up, answers or puts in other words, as the text comes; each change can be undone.
struct MailView: View {
    @Environment(Assistant.self) private var assistant
    @Environment(\.undoManager) private var undoManager
    @State private var mail = "Dear all,\n\nthe meeting on Monday is moved to Tuesday at ten, in the small room.\n\nAnna"
    @State private var history = History()

    private enum Work: String, CaseIterable {
        case summarise = "Summarise", reply = "Reply", rewrite = "Rewrite"

        func prompt(_ mail: String) -> String {
            switch self {
            case .summarise: "Mail:\n\(mail)\n\nThe mail in one sentence:"
            case .reply: "Mail:\n\(mail)\n\nA polite reply:\n"
            case .rewrite: "Mail:\n\(mail)\n\nThe same mail in simpler words:\n"
            }
        }
    }

    var body: some View {
        NavigationStack {
            TextEditor(text: $mail)
                .disabled(assistant.isWriting)
                .padding()
                .toolbar {
                    ToolbarItemGroup(placement: .primaryAction) {
                        if assistant.isWriting {
                            Button("Stop", systemImage: "stop.circle", action: assistant.stop)
                        } else {
                            Menu("Write", systemImage: "sparkles") {
                                ForEach(Work.allCases, id: \.self) { work in Button(work.rawValue) { perform(work) } }
                            }
                            .disabled(!assistant.isReady)
                        }
                        Button("Undo", systemImage: "arrow.uturn.backward") { undoManager?.undo() }
                            .disabled(assistant.isWriting)
                    }
                }
        }
    }

    private func perform(_ work: Work) {
        let before = mail
        undoManager?.registerUndo(withTarget: history) { _ in mail = before }
        undoManager?.setActionName(work.rawValue)
        mail = work == .rewrite ? "" : before + "\n\n"
        assistant.write(work.prompt(before)) { mail += $0 }
    }

    /// What the undo manager holds on to.
    private final class History {}
}
