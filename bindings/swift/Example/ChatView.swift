import OpenELM
import SwiftUI

/// Questions and answers, one below the other.
struct ChatView: View {
    @Environment(Assistant.self) private var assistant
    @State private var turns: [Turn] = []
    @State private var question = ""

    struct Turn: Identifiable {
        let id = UUID()
        let question: String
        var answer = ""
    }

    var body: some View {
        VStack {
            ScrollView {
                LazyVStack(alignment: .leading, spacing: 12) {
                    ForEach(turns) { turn in
                        Text(turn.question).bold()
                        Text(turn.answer).textSelection(.enabled)
                    }
                }
                .padding()
            }
            if let message = assistant.message { Text(message).foregroundStyle(.red) }
            HStack {
                TextField("Ask something", text: $question).textFieldStyle(.roundedBorder).onSubmit(ask)
                if assistant.isWriting {
                    Button("Stop", systemImage: "stop.circle", action: assistant.stop)
                } else {
                    Button("Send", systemImage: "arrow.up.circle", action: ask).disabled(!assistant.isReady || question.isEmpty)
                }
            }
            .labelStyle(.iconOnly)
            .padding()
        }
    }

    private func ask() {
        guard assistant.isReady, !assistant.isWriting, !question.isEmpty else { return }
        turns.append(Turn(question: question))
        question = ""
        let last = turns.count - 1
        let messages = turns.dropLast().flatMap {
            [Message(role: "user", content: $0.question), Message(role: "assistant", content: $0.answer)]
        }
        assistant.answer(messages + [Message(role: "user", content: turns[last].question)]) { turns[last].answer += $0 }
    }
}
